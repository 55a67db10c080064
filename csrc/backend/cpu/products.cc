#include "backend/cpu/products.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "backend/cpu/segments.h"
#include "tensor/block_codes.h"

namespace medusa::cpu {
namespace {

constexpr int64_t kElementsPerThread = 1 << 11;  // of activations to convert
constexpr int64_t kWeightBytesPerThread = 1 << 15;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

static_assert(static_cast<int>(Finish::store) == static_cast<int>(Epilogue::store));
static_assert(static_cast<int>(Finish::add) == static_cast<int>(Epilogue::add));
static_assert(static_cast<int>(Finish::silu_mul) == static_cast<int>(Epilogue::silu_mul));
static_assert(static_cast<int>(Finish::residual_silu) == static_cast<int>(Epilogue::residual_silu));

// One thread's share of a ranking of all threads.
Ranking share_of(const Ranking& all, int64_t rows, int thread) {
  const int64_t at = thread * rows * all.k;
  return {all.values + at, all.ids + at, all.k};
}

// Threads' columns rise from share to share, so that of equals the first one found is the lowest.
void merge_row(const Ranking& all, int64_t rows, int64_t row, int threads, float* values,
               int32_t* ids) {
  std::fill_n(values, all.k, kLowest);
  for (int thread = 0; thread < threads; ++thread) {
    const Ranking share = share_of(all, rows, thread);
    for (int64_t i = row * all.k; i < (row + 1) * all.k; ++i) {
      const auto at = std::upper_bound(values, values + all.k, share.values[i], std::greater<>());
      if (at == values + all.k) break;
      const auto place = at - values;
      std::move_backward(values + place, values + all.k - 1, values + all.k);
      std::move_backward(ids + place, ids + all.k - 1, ids + all.k);
      values[place] = share.values[i];
      ids[place] = share.ids[i];
    }
  }
}

// Ids that no finite value has, from 0 up, behind those that have one.
void fill_up(const float* values, int32_t* ids, int64_t k) {
  const auto found = std::count_if(values, values + k, [](float v) { return v > kLowest; });
  int32_t next = 0;
  for (auto i = found; i < k; ++i, ++next) {
    while (std::find(ids, ids + found, next) != ids + found) ++next;
    ids[i] = next;
  }
}

}  // namespace

void Products::linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) {
  LinearArgs args = arguments(x, weight);
  args.finish = static_cast<Finish>(epilogue);
  args.out = out.data;
  args.out_stride = out.cols;
  run(weight, [&](int) { return args; });
}

void Products::top_k(Tensor values, Tensor ids, Tensor x, const Weight& weight) {
  LinearArgs args = arguments(x, weight);
  args.finish = Finish::rank;
  const Ranking all = empty_ranking(x.rows, values.cols);
  run(weight, [&](int thread) {
    args.ranking = share_of(all, x.rows, thread);
    return args;
  });
  for (int64_t r = 0; r < x.rows; ++r) {
    merge_row(all, x.rows, r, pool_.num_threads(), values.row<float>(r), ids.row<int32_t>(r));
    fill_up(values.row<float>(r), ids.row<int32_t>(r), values.cols);
  }
}

Ranking Products::empty_ranking(int64_t rows, int64_t k) {
  const auto count = static_cast<size_t>(pool_.num_threads() * rows * k);
  auto* memory = static_cast<char*>(ranking_.reserve(count * (sizeof(float) + sizeof(int32_t))));
  auto* values = reinterpret_cast<float*>(memory);
  std::fill_n(values, count, kLowest);
  return {values, reinterpret_cast<int32_t*>(values + count), k};
}

// `args_of` a thread are those of its panels.
template <class Args>
void Products::run(const Weight& weight, const Args& args_of) {
  const int64_t panels = (weight.out_features + kPanel - 1) / kPanel;
  const int64_t bytes = static_cast<int64_t>(weight.storage.bytes()) / panels;
  pool_.parallel_for(panels, std::max<int64_t>(1, kWeightBytesPerThread / bytes),
                     [&](int64_t first, int64_t last, int thread) {
                       for (const WeightSegment& s : weight.segments) {
                         multiply(args_of(thread), weight, s, first, last);
                       }
                     });
}

LinearArgs Products::arguments(Tensor x, const Weight& weight) {
  LinearArgs a{};
  a.x = x.data;
  a.x_stride = x.cols;
  a.rows = x.rows;
  a.k = x.cols;
  a.bias = static_cast<const float*>(weight.bias.data());
  a.n = weight.out_features;
  a.residual = x.data;
  a.residual_stride = x.cols;
  for (const WeightSegment& s : weight.segments) {
    if (s.dtype == DType::bf16 || s.dtype == DType::f8_e4m3) adapt_activations(a, x);
    if (block_format(s.dtype) != nullptr && a.groups == nullptr) a.groups = quantized(x);
  }
  return a;
}

// The panels of one segment among first .. last - 1 of the whole.
void Products::multiply(LinearArgs args, const Weight& weight, const WeightSegment& segment,
                        int64_t first, int64_t last) const {
  const int64_t begin = segment.first_row / kPanel;
  const int64_t end = (segment.first_row + segment.num_rows + kPanel - 1) / kPanel;
  const auto bytes = static_cast<int64_t>(panel_bytes(segment.dtype, weight.in_features));
  args.weight = static_cast<const char*>(weight.storage.data()) + segment.offset - begin * bytes;
  const auto product = kernels_.linear[element_type(segment.dtype)];
  if (std::max(first, begin) < std::min(last, end)) {
    product(args, std::max(first, begin), std::min(last, end));
  }
}

// Rows for products with blocks; tiles read some beyond the last.
const QuantizedGroup* Products::quantized(Tensor x) {
  const int64_t groups = x.rows * x.cols / 32;
  const int64_t padding = kernels_.row_padding * x.cols / 32;
  auto* out = static_cast<QuantizedGroup*>(
      groups_.reserve(static_cast<size_t>(groups + padding) * sizeof(QuantizedGroup)));
  pool_.parallel_for(groups, kElementsPerThread / 32, [&](int64_t first, int64_t last, int) {
    kernels_.quantize(out, x.data, first, last);
  });
  return out;
}

// What this ISA's bf16 products want beside, or instead of, the rows themselves.
void Products::adapt_activations(LinearArgs& a, Tensor x) {
  const int64_t elements = x.rows * x.cols;
  if (kernels_.widens_activations) {
    auto* wide = static_cast<float*>(rows_.reserve(static_cast<size_t>(elements) * sizeof(float)));
    const auto* narrow = x.row<uint16_t>(0);
    pool_.parallel_for(elements, kElementsPerThread, [&](int64_t first, int64_t last, int) {
      kernels_.widen(wide + first, narrow + first, last - first);
    });
    a.x = wide;
  } else if (const int64_t rest = x.rows % kernels_.row_padding; rest > 0) {
    const size_t bytes = static_cast<size_t>(rest) * x.row_bytes();
    const size_t padded = static_cast<size_t>(kernels_.row_padding) * x.row_bytes();
    auto* tail = static_cast<char*>(rows_.reserve(padded));
    std::memcpy(tail, x.row<char>(x.rows - rest), bytes);
    std::memset(tail + bytes, 0, padded - bytes);
    a.tail = tail;
  }
}

}  // namespace medusa::cpu
