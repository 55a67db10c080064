// Each product of a SmolLM2-135M and a Llama-2-7B layer: time, bytes, share of a read stream of the
// same bytes in the same process, and t(rows) / t(1). Weights rotate through copies that together
// exceed the caches, as in a model. Usage: kernels_benchmark [threads] [isa | format | shape ...],
// names or beginnings of names; none: all.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "backend/cpu/cpu_backend.h"
#include "backend/ops.h"
#include "base/thread_pool.h"
#include "measure.h"
#include "random_weights.h"
#include "stream.h"

namespace medusa::benchmark {
namespace {

struct Shape {
  const char* name;
  int64_t k, n;
  Epilogue epilogue;
};

constexpr Shape kShapes[] = {
    {"qkv 576x960", 576, 960, Epilogue::store},
    {"o 576x576", 576, 576, Epilogue::add},
    {"gate_up 576x3072", 576, 3072, Epilogue::silu_mul},
    {"down 1536x576", 1536, 576, Epilogue::add},
    {"lm_head 576x49152", 576, 49152, Epilogue::store},
    {"7b gate_up 4096x22016", 4096, 22016, Epilogue::silu_mul},
    {"7b down 11008x4096", 11008, 4096, Epilogue::add},
};
constexpr int kRows[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 256};
constexpr size_t kWorkingSet = size_t{300} << 20;
constexpr size_t kTurnBytes = size_t{60} << 20;  // read in one timed turn
constexpr int kRepeats = 7;

Weight make_weight(Backend& backend, const Shape& shape, DType dtype) {
  const std::vector<uint8_t> bytes = random_bytes(dtype, shape.k * shape.n);
  const HostTensor host{bytes.data(), bytes.size(), dtype, {shape.n, shape.k}};
  return backend.prepare_weight({.parts = {&host}, .name = shape.name});
}

std::vector<Weight> copies_of(Weight first, Backend& backend) {
  const size_t bytes = first.storage.bytes();
  std::vector<Weight> copies;
  copies.push_back(std::move(first));
  while (copies.size() * bytes < kWorkingSet) {
    Weight copy;
    copy.storage = backend.allocate(bytes);
    std::memcpy(copy.storage.data(), copies[0].storage.data(), bytes);
    copy.segments = copies[0].segments;
    copy.out_features = copies[0].out_features;
    copy.in_features = copies[0].in_features;
    copies.push_back(std::move(copy));
  }
  return copies;
}

void measure(Backend& backend, ThreadPool& pool, const Shape& shape, DType dtype) {
  const std::vector<Weight> weights = copies_of(make_weight(backend, shape, dtype), backend);
  const size_t bytes = weights[0].storage.bytes();
  const size_t calls = std::max<size_t>(1, kTurnBytes / bytes);
  const int64_t out_cols = shape.epilogue == Epilogue::silu_mul ? shape.n / 2 : shape.n;
  const DType compute = backend.compute_dtype();
  const Buffer x = backend.allocate(256 * static_cast<size_t>(shape.k) * 4);
  const Buffer out = backend.allocate(256 * static_cast<size_t>(out_cols) * 4);
  std::memset(x.data(), 0x3c, x.bytes());
  size_t next = 0;
  std::vector<std::function<void()>> bodies;
  bodies.push_back([&] {
    for (size_t i = 0; i < calls; ++i) {
      stream(pool, weights[next++ % weights.size()].storage.data(), bytes);
    }
  });
  for (int rows : kRows) {
    bodies.push_back([&, rows] {
      const DType type = shape.epilogue == Epilogue::silu_mul ? compute : DType::f32;
      for (size_t i = 0; i < calls; ++i) {
        ops::linear(backend, {out.data(), type, rows, out_cols}, {x.data(), compute, rows, shape.k},
                    weights[next++ % weights.size()], shape.epilogue);
      }
    });
  }
  std::vector<double> times = interleaved(bodies, kRepeats);
  for (double& t : times) t /= static_cast<double>(calls);
  std::printf("%-22s %6.1f MB  stream %5.1f GB/s |", shape.name, static_cast<double>(bytes) / 1e6,
              static_cast<double>(bytes) / times[0] / 1e9);
  std::printf(" 1: %.0f us, %.0f%% of stream |", times[1] * 1e6, 100 * times[0] / times[1]);
  for (size_t i = 1; i < std::size(kRows); ++i) {
    std::printf(" %d: %.2f", kRows[i], times[i + 1] / times[1]);
  }
  const double macs = 256.0 * static_cast<double>(shape.k * shape.n);
  std::printf(" | 256: %.0f GMAC/s\n", macs / times.back() / 1e9);
  std::fflush(stdout);
}

constexpr DType kFormats[] = {DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                              DType::q4_k, DType::q5_k, DType::q6_k, DType::f32};

// Whether an argument names it, or no argument is of its kind.
template <class Names>
bool wanted(std::span<char* const> arguments, const Names& names, std::string_view name) {
  const auto begins = [](std::string_view text, const char* with) {
    return text.starts_with(with);
  };
  bool any = false;
  for (const char* argument : arguments) {
    if (begins(name, argument)) return true;
    for (const auto& other : names) any = any || begins(other, argument);
  }
  return !any;
}

void run(std::span<char* const> arguments, int threads) {
  std::vector<std::string_view> isas, formats, shapes;
  for (const cpu::Isa isa : cpu::supported_isas()) isas.push_back(cpu::name(isa));
  for (const DType format : kFormats) formats.push_back(name(format));
  for (const Shape& shape : kShapes) shapes.emplace_back(shape.name);
  ThreadPool pool(threads);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    if (!wanted(arguments, isas, cpu::name(isa))) continue;
    for (const DType format : kFormats) {
      if (!wanted(arguments, formats, name(format))) continue;
      const bool wide = format == DType::f32;
      const auto backend = make_cpu_backend(
          isa, {.compute_type = wide ? ComputeType::float32 : ComputeType::bfloat16,
                .num_threads = threads});
      std::printf("%s, %s\n", backend->name().c_str(), name(format).data());
      for (const Shape& shape : kShapes) {
        const bool fits = shape.k % block_elements(format) == 0;
        if (fits && wanted(arguments, shapes, shape.name)) measure(*backend, pool, shape, format);
      }
    }
  }
}

}  // namespace
}  // namespace medusa::benchmark

int main(int argc, char** argv) {
  const std::span<char* const> arguments(argv + 1, argv + argc);
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  medusa::benchmark::run(arguments.subspan(argc > 1 ? 1 : 0), threads);
  return 0;
}
