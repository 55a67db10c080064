// What a step of a random model takes on the CPU, verb by verb, beside a read of the same bytes in
// the same turns. benchmarks/steps.py runs it, a question a process, and keeps what it prints: a
// JSON object a line.
// usage: step_profile steps|prefill|greedy|pinning [shapes=smollm2|1.1b] [format=BF16]
//        [context=200] [cache=auto,int8] [rows=1,16,64] [sequences=1] [threads=0] [repeats=25]
// steps: one tree of each size, or as many sequences of one row. prefill: rows of a prompt, beside
// the peak of the bf16 instruction. greedy: an lm_head that ranks as it multiplies, and one whose
// logits are stored and searched. pinning: a step on workers tied to a core each, and free ones.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "backend/cpu/isa.h"
#include "measure.h"
#include "peak.h"
#include "pin.h"
#include "profiling_backend.h"
#include "random_model.h"
#include "step_pass.h"
#include "stream.h"

namespace medusa::benchmark {
namespace {

struct Options {
  std::map<std::string, std::string> values;

  Options(int argc, char** argv) {
    for (int i = 2; i < argc; ++i) {
      const std::string text = argv[i];
      const size_t at = text.find('=');
      values[text.substr(0, at)] = at == std::string::npos ? "" : text.substr(at + 1);
    }
  }
  std::string text(const std::string& name, const std::string& otherwise) const {
    const auto found = values.find(name);
    return found == values.end() ? otherwise : found->second;
  }
  int number(const std::string& name, int otherwise) const {
    return std::atoi(text(name, std::to_string(otherwise)).c_str());
  }
  std::vector<std::string> list(const std::string& name, const std::string& otherwise) const {
    std::vector<std::string> out;
    std::string all = text(name, otherwise) + ",";
    for (size_t at; (at = all.find(',')) != std::string::npos; all.erase(0, at + 1)) {
      out.push_back(all.substr(0, at));
    }
    return out;
  }
};

ModelConfig llama(int layers, int hidden, int inner, int heads, int kv_heads, int vocab) {
  ModelConfig config;
  config.num_hidden_layers = layers;
  config.hidden_size = hidden;
  config.intermediate_size = inner;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = hidden / heads;
  config.vocab_size = vocab;
  config.max_position_embeddings = 1 << 15;
  return config;
}

// Of SmolLM2-135M, or of TinyLlama-1.1B.
ModelConfig config_of(const std::string& shapes) {
  if (shapes == "1.1b") return llama(22, 2048, 5632, 32, 4, 32000);
  ModelConfig config = llama(30, 576, 1536, 9, 3, 49152);
  config.tie_word_embeddings = true;
  return config;
}

/// A model, the steps asked for, and a stream of as many bytes as the largest of them reads.
struct Bench {
  explicit Bench(const Options& asked)
      : options(asked),
        backend(make_cpu_backend({.num_threads = options.number("threads", 0)})),
        pool(backend.num_threads()),
        config(config_of(options.text("shapes", "smollm2"))),
        weights(config, parse_dtype(options.text("format", "BF16"))),
        model(backend, config, weights.tensors),
        repeats(options.number("repeats", 25)) {}

  void add_steps() {
    for (const std::string& cache : options.list("cache", "auto")) {
      for (const std::string& rows : options.list("rows", "1,4,8,16,32,64")) {
        StepShape shape{.context = options.number("context", 200)};
        shape.cache =
            KvCache::dtype_of(backend, cache == "int8" ? KvCacheType::int8 : KvCacheType::compute);
        shape.rows = std::atoi(rows.c_str());
        if (options.text("sequences", "1") == "rows") std::swap(shape.sequences, shape.rows);
        passes.push_back(std::make_unique<StepPass>(backend, model, shape));
      }
    }
    double most = 0;
    for (const auto& pass : passes) most = std::max(most, pass->bytes());
    read = backend.allocate(static_cast<size_t>(most));
    std::memset(read.data(), 1, read.bytes());
  }

  Options options;
  ProfilingBackend backend;
  ThreadPool pool;
  ModelConfig config;
  RandomModel weights;
  Llama model;
  int repeats;
  std::vector<std::unique_ptr<StepPass>> passes;
  Buffer read;
};

using Verbs = std::map<std::string, std::vector<double>>;

bool is_product_or_attention(const std::string& verb) {
  return verb.starts_with("linear") || verb == "accept" || verb == "tree_attention";
}

void print_step(const Bench& bench, const StepPass& pass, double seconds, double alone, double rate,
                const Verbs& verbs) {
  const StepShape& shape = pass.shape();
  double inside = 0;
  std::string each;
  for (const auto& [verb, times] : verbs) {
    const double ms = median(times) * 1e3;
    if (is_product_or_attention(verb)) inside += ms / 1e3;
    each += (each.empty() ? "\"" : ", \"") + verb + "\": " + std::to_string(ms);
  }
  std::printf(
      "{\"section\": \"step\", \"shapes\": \"%s\", \"format\": \"%s\", \"cache\": \"%s\", "
      "\"context\": %d, \"sequences\": %d, \"rows\": %d, \"ms\": %.4f, \"bytes\": %.0f, "
      "\"GB/s\": %.2f, \"of_stream\": %.4f, \"to_first\": %.4f, \"outside\": %.4f, "
      "\"verbs_ms\": {%s}}\n",
      bench.options.text("shapes", "smollm2").c_str(), name(bench.weights.format).data(),
      name(shape.cache).data(), shape.context, shape.sequences, shape.rows, seconds * 1e3,
      pass.bytes(), pass.bytes() / seconds / 1e9, pass.bytes() / seconds / rate, seconds / alone,
      1 - inside / seconds, each.c_str());
}

void steps(Bench& bench) {
  bench.add_steps();
  std::vector<Verbs> verbs(bench.passes.size());
  std::vector<std::function<void()>> bodies;
  bodies.push_back([&] { stream(bench.pool, bench.read.data(), bench.read.bytes()); });
  for (size_t i = 0; i < bench.passes.size(); ++i) {
    bodies.push_back([&, i] {
      bench.backend.seconds.clear();
      bench.passes[i]->run();
      for (const auto& [verb, time] : bench.backend.seconds) verbs[i][verb].push_back(time);
    });
  }
  const std::vector<double> times = interleaved(bodies, bench.repeats);
  const double rate = static_cast<double>(bench.read.bytes()) / times[0];
  std::printf("{\"section\": \"stream\", \"backend\": \"%s\", \"bytes\": %zu, \"GB/s\": %.2f}\n",
              bench.backend.name().c_str(), bench.read.bytes(), rate / 1e9);
  for (size_t i = 0; i < bench.passes.size(); ++i) {
    print_step(bench, *bench.passes[i], times[i + 1], times[1], rate, verbs[i]);
  }
}

// Of a causal prompt, whose last row alone has logits.
double multiply_adds(const ModelConfig& c, const Llama& model, double rows) {
  const double head = static_cast<double>(c.vocab_size) * c.hidden_size;
  double weights = 0;
  for (const auto& [format, count] : model.weight_formats()) weights += static_cast<double>(count);
  weights -= head;
  const double attended = rows * (rows + 1) * c.num_attention_heads * c.head_dim;
  return weights * rows + head + attended * c.num_hidden_layers;
}

void prefill(Bench& bench) {
  const int rows = bench.options.number("rows", 1024);
  StepPass pass(bench.backend, bench.model, {.rows = rows, .context = 0, .chain = true});
  std::vector<double> peaks;
  const auto measure_peak = [&] {
    peaks.push_back(bf16_peak(bench.pool, cpu::name(cpu::choose_isa())));
  };
  const double seconds = interleaved({measure_peak, [&] { pass.run(); }}, bench.repeats)[1];
  const double rate = multiply_adds(bench.config, bench.model, rows) / seconds;
  std::printf(
      "{\"section\": \"prefill\", \"backend\": \"%s\", \"shapes\": \"%s\", \"rows\": %d, \"ms\": "
      "%.2f, \"GMAC/s\": %.1f, \"peak GMAC/s\": %.1f, \"of_peak\": %.4f}\n",
      bench.backend.name().c_str(), bench.options.text("shapes", "smollm2").c_str(), rows,
      seconds * 1e3, rate / 1e9, median(peaks) / 1e9, rate / median(peaks));
}

void greedy(Bench& bench) {
  for (const std::string& count : bench.options.list("rows", "1,16,64")) {
    const int rows = std::atoi(count.c_str());
    TensorStore store(bench.backend);
    const Tensor x = store.add(DType::bf16, rows, bench.config.hidden_size);
    const Tensor logits = store.add(DType::f32, rows, bench.config.vocab_size);
    const Tensor values = store.add(DType::f32, rows, 1), ids = store.add(DType::i32, rows, 1);
    std::copy_n(bench.weights.matrix.data(), x.bytes(), static_cast<uint8_t*>(x.data));
    std::vector<int32_t> drawn(static_cast<size_t>(rows));
    std::vector<SampleRow> draws(static_cast<size_t>(rows));
    for (int row = 0; row < rows; ++row) draws[static_cast<size_t>(row)].row = row;
    const Weight& head = bench.model.lm_head();
    const auto store_all = [&] {
      ops::linear(bench.backend, logits, x, head, Epilogue::store);
      bench.backend.sample(drawn, logits, draws);
    };
    const auto rank = [&] { ops::linear_top_k(bench.backend, values, ids, x, {&head, 1}); };
    const std::vector<double> times = interleaved({store_all, rank}, bench.repeats);
    const bool same = std::ranges::equal(drawn, std::span(ids.row<int32_t>(0), drawn.size()));
    std::printf(
        "{\"section\": \"greedy\", \"shapes\": \"%s\", \"rows\": %d, \"stored_ms\": %.4f, "
        "\"ranked_ms\": %.4f, \"stored_over_ranked\": %.4f, \"same_ids\": %s}\n",
        bench.options.text("shapes", "smollm2").c_str(), rows, times[0] * 1e3, times[1] * 1e3,
        times[0] / times[1], same ? "true" : "false");
  }
}

void pinning(Bench& bench) {
  bench.add_steps();
  for (const bool loaded : {false, true}) {
    const BusyThread other(loaded);
    for (const auto& pass : bench.passes) {
      std::vector<std::vector<double>> times(2);
      for (int turn = 0; turn < bench.repeats; ++turn) {
        for (const bool pinned : {false, true}) {
          pin_threads(bench.backend.num_threads(), pinned);
          for (int i = 0; i < 4; ++i) {
            const double t = seconds_of([&] { pass->run(); });
            if (i > 0) times[pinned].push_back(t);
          }
        }
      }
      pin_threads(bench.backend.num_threads(), false);
      std::printf(
          "{\"section\": \"pinning\", \"rows\": %d, \"other_thread\": %s, \"free_ms\": %.4f, "
          "\"pinned_ms\": %.4f, \"free_over_pinned\": %.4f}\n",
          pass->shape().rows, loaded ? "true" : "false", median(times[0]) * 1e3,
          median(times[1]) * 1e3, median(times[0]) / median(times[1]));
    }
  }
}

}  // namespace
}  // namespace medusa::benchmark

int main(int argc, char** argv) {
  using namespace medusa::benchmark;
  const std::map<std::string, void (*)(Bench&)> questions = {
      {"steps", steps}, {"prefill", prefill}, {"greedy", greedy}, {"pinning", pinning}};
  const auto question = questions.find(argc > 1 ? argv[1] : "steps");
  if (question == questions.end()) {
    std::fprintf(stderr, "expected steps, prefill, greedy or pinning, found %s\n", argv[1]);
    return 2;
  }
  Bench bench(Options(argc, argv));
  question->second(bench);
  return 0;
}
