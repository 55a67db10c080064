#include "backend/cuda/logits_products.h"

#include <algorithm>

#include "backend/cuda/pack.h"

namespace medusa::cuda {
namespace {

Format packing_of(const Weight& weight) { return format_of(weight.segments[0].dtype); }

}  // namespace

LinearArgs linear_args(Queue& queue, Tensor x, const Weight& weight, Finish finish) {
  const Format format = packing_of(weight);
  const int64_t k = weight.in_features, n = weight.out_features;
  LinearArgs a{};
  a.x = x.data;
  a.weight = pieces_of(weight);
  a.bias = static_cast<const float*>(weight.bias.data());
  a.rows = static_cast<int>(x.rows);
  a.k = static_cast<int>(k);
  a.n = static_cast<int>(n);
  a.finish = finish;
  const bool float8 = format == Format::f8_e4m3;  // portable kernels alone read it
  a.kernels = float8 ? KernelSet::portable : queue.kernels;
  a.splits = linear_splits(a.kernels, k, n);
  a.sharers = linear_sharers(a.kernels, k, n);
  if (!linear_joins_in_memory(a.kernels, format, a.splits)) return a;
  const int64_t partials = linear_partials(format, x.rows, n, a.splits);
  a.partials = queue.scratch.reserve<float>(queue.stream, partials);
  a.tickets = queue.tickets.reserve<int>(queue.stream, linear_tiles(format, x.rows, n));
  return a;
}

const int32_t* LogitsProducts::choose(Queue& queue, const LogitsProduct& product,
                                      std::span<const LogitsRow> rows, const Judged& out) {
  const int64_t count = product.x.rows, vocab = product.weight->out_features;
  if (count == 0) return nullptr;
  const int64_t records = count * logits_tiles(vocab);
  const bool judges =
      std::ranges::any_of(rows, [](const LogitsRow& row) { return row.num_tokens > 0; });
  LinearArgs a = linear_args(queue, product.x, *product.weight, Finish::reduce);
  a.out = product.wanted ? product.logits.data : nullptr;
  a.records.rows = rows_.of(queue, rows);
  a.records.tokens = out.tokens;
  a.records.keys = keys_.reserve<uint64_t>(queue.stream, 2 * records);
  if (judges) a.records.sums = sums_.reserve<float>(queue.stream, 2 * records);
  a.records.token_logits = out.token_logits;
  cuda::linear(queue.stream, packing_of(*product.weight), a);
  auto* ids = ids_.reserve<int32_t>(queue.stream, count);
  cuda::choose(queue.stream, {a.records, ids, out.log_probs, out.entropies, a.rows, a.n});
  return ids;
}

void LogitsProducts::top_k(Queue& queue, Tensor values, Tensor ids, Tensor x,
                           std::span<const Weight> weights) {
  if (x.rows == 0) return;
  const int64_t vocab = weights[0].out_features, k = ids.cols;
  const int64_t share = x.rows / static_cast<int64_t>(weights.size());
  const int64_t keys_of_row = logits_tiles(vocab) * k;
  auto* keys = keys_.reserve<uint64_t>(queue.stream, x.rows * keys_of_row);
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t first = static_cast<int64_t>(i) * share;
    LinearArgs a = linear_args(queue, x.slice(first, share), weights[i], Finish::reduce);
    a.records.keys = keys + first * keys_of_row;
    a.records.k = static_cast<int>(k);
    cuda::linear(queue.stream, packing_of(weights[i]), a);
  }
  cuda::merge_top_k(queue.stream,
                    {keys, values.row<float>(0), ids.row<int32_t>(0), static_cast<int>(x.rows),
                     static_cast<int>(vocab), static_cast<int>(k)});
}

}  // namespace medusa::cuda
