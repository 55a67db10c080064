// Each verb alone, on the device's clock: seconds, bytes moved at least, GB/s and their share of a
// read of as many bytes.
#include <algorithm>
#include <numeric>

#include "backend/ops.h"
#include "gpu/bench.h"
#include "model/kv_cache.h"
#include "model/rope_table.h"
#include "model/workspace.h"
#include "random_model.h"

namespace medusa::benchmark {
namespace {

// One layer of a model, and all that its verbs need.
class Verbs {
 public:
  Verbs(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock)
      : report_(report),
        plan_(plan),
        name_(shape.name),
        config_(one_layer(shape.config)),
        clock_(clock),
        weights_(config_, DType::bf16),
        backend_(make_backend({.device = "cuda", .stream = clock.stream().handle()})),
        most_(*std::max_element(plan.rows.begin(), plan.rows.end())),
        workspace_(*backend_, config_, DType::bf16, most_, most_),
        rope_(*backend_, config_, 4096),
        norm_(backend_->allocate(static_cast<size_t>(config_.hidden_size) * sizeof(float))) {}

  void products() {
    const int64_t d = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t q = int64_t{config_.num_attention_heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.num_key_value_heads} * config_.head_dim;
    product("qkv", {q + 2 * kv, d}, Pack::concatenate, Epilogue::store);
    product("o", {d, q}, Pack::concatenate, Epilogue::add);
    product("gate_up", {inner, d}, Pack::interleave, Epilogue::silu_mul);
    product("down", {d, inner}, Pack::concatenate, Epilogue::add);
    product("lm_head", {config_.vocab_size, d}, Pack::concatenate, Epilogue::store);
  }

  void others() {
    for (const int rows : plan_.rows) {
      row_wise(rows);
      logits_wise(rows);
      for (const int context : plan_.contexts) attend(rows, context);
    }
  }

 private:
  static ModelConfig one_layer(ModelConfig config) {
    config.num_hidden_layers = 1;
    return config;
  }

  // Weights of one shape in turns, so that none is in a cache when its turn comes.
  std::vector<Weight> copies(const std::vector<int64_t>& shape, Pack pack) {
    const HostTensor part = weights_.view(shape);
    const bool two = pack == Pack::interleave;
    const auto parts = two ? std::vector{&part, &part} : std::vector{&part};
    std::vector<Weight> copies;
    do {
      copies.push_back(backend_->prepare_weight({.parts = parts, .pack = pack, .name = "random"}));
    } while (copies.size() * copies[0].bytes() < plan_.working_set);
    return copies;
  }

  void product(const char* verb, const std::vector<int64_t>& shape, Pack pack, Epilogue epilogue) {
    const std::vector<Weight> weights = copies(shape, pack);
    const int64_t k = shape[1], n = shape[0];
    const DType type = epilogue == Epilogue::silu_mul ? DType::bf16 : DType::f32;
    const Buffer x = backend_->allocate(static_cast<size_t>(most_ * k) * 2);
    const Buffer out = backend_->allocate(static_cast<size_t>(most_ * n) * 4);
    size_t next = 0;
    for (const int rows : plan_.rows) {
      const Tensor to{out.data(), type, rows, n}, from{x.data(), DType::bf16, rows, k};
      const auto once = [&] {
        ops::linear(*backend_, to, from, weights[next++ % weights.size()], epilogue);
      };
      add(verb, rows, 0, weights[0].bytes() + from.bytes() + to.bytes(), once);
    }
  }

  void row_wise(int rows) {
    const int64_t d = config_.hidden_size;
    const std::span<const float> norm(static_cast<const float*>(norm_.data()),
                                      static_cast<size_t>(d));
    const Tensor x = workspace_.residual(rows), out = workspace_.normed(rows);
    add("rms_norm", rows, 0, x.bytes() + out.bytes(),
        [&] { ops::rms_norm(*backend_, out, x, norm, 1e-5f); });
    const std::vector<int32_t> positions(static_cast<size_t>(rows), 5);
    const QkvSplit split{.q = workspace_.q(rows),
                         .keys = workspace_.keys(0, rows),
                         .values = workspace_.values(0, rows),
                         .num_heads = config_.num_attention_heads,
                         .num_kv_heads = config_.num_key_value_heads,
                         .head_dim = config_.head_dim};
    const Tensor qkv = workspace_.qkv(rows);
    add("rope", rows, 0, qkv.bytes() + split.q.bytes() + split.keys.bytes() + split.values.bytes(),
        [&] { ops::rope(*backend_, split, qkv, positions, rope_.view()); });
    const Buffer picked = backend_->allocate(static_cast<size_t>(rows) * sizeof(int32_t));
    const Tensor to = workspace_.picked(rows);
    add("gather_rows", rows, 0, 2 * to.bytes(), [&] {
      ops::gather_rows(*backend_, to, workspace_.hidden(rows),
                       {picked.data(), DType::i32, 1, rows});
    });
  }

  void logits_wise(int rows) {
    constexpr int kTop = 10;
    const Tensor logits = workspace_.logits(rows);
    const Buffer values = backend_->allocate(static_cast<size_t>(rows) * kTop * 4);
    const Buffer ids = backend_->allocate(static_cast<size_t>(rows) * kTop * 4);
    add("top_k", rows, 0, logits.bytes(), [&] {
      ops::top_k(*backend_, {values.data(), DType::f32, rows, kTop},
                 {ids.data(), DType::i32, rows, kTop}, logits);
    });
    std::vector<SampleRow> draws(static_cast<size_t>(rows));
    for (int r = 0; r < rows; ++r) draws[static_cast<size_t>(r)].row = r;
    std::vector<int32_t> drawn(draws.size());
    add("sample, with its wait", rows, 0, logits.bytes(),
        [&] { ops::sample(*backend_, drawn, logits, draws); });
  }

  void attend(int rows, int context) {
    KvCache cache(*backend_, config_, DType::bf16, 1, KvCache::pages_for(context + most_),
                  context + most_);
    cache.reserve(0, context + most_);
    const RowBatch batch = tree_batch(rows, context, cache.pages(0));
    const AttentionInputs in{.q = workspace_.q(rows),
                             .keys = workspace_.keys(0, rows),
                             .values = workspace_.values(0, rows),
                             .cache = &cache.layout(),
                             .num_heads = config_.num_attention_heads,
                             .scale = 0.1f};
    const Tensor out = workspace_.attended(rows);
    const size_t prefix = 2 * static_cast<size_t>(context) * config_.num_key_value_heads *
                          static_cast<size_t>(config_.head_dim) * 2;
    add("tree_attention", rows, context,
        prefix + in.q.bytes() + in.keys.bytes() + in.values.bytes() + out.bytes(),
        [&] { ops::tree_attention(*backend_, out, in, batch); });
    if (rows > 5 || context != plan_.contexts[0]) return;
    std::vector<CommitRow> accepted;
    for (int r = 0; r < rows; ++r) accepted.push_back({r, cache.pages(0)[0], r});
    add("commit", rows, 0, 2 * (in.keys.bytes() + in.values.bytes()), [&] {
      ops::commit(*backend_, cache.layout(), workspace_.all_keys(), workspace_.all_values(),
                  accepted);
    });
  }

  void add(const char* verb, int rows, int context, size_t bytes,
           const std::function<void()>& body) {
    const double seconds = clock_.seconds(body, plan_.calls, plan_.repeats);
    const double rate = static_cast<double>(bytes) / seconds / 1e9;
    report_.add("verb", {{"model", name_},
                         {"verb", verb},
                         {"rows", double(rows)},
                         {"context", double(context)},
                         {"us", seconds * 1e6},
                         {"bytes", double(bytes)},
                         {"GB/s", rate},
                         {"of_stream", rate / clock_.read_rate()}});
  }

  Report& report_;
  const Plan& plan_;
  const std::string name_;
  const ModelConfig config_;
  DeviceClock& clock_;
  const RandomModel weights_;
  const std::shared_ptr<Backend> backend_;
  const int most_;
  Workspace workspace_;
  RopeTable rope_;
  Buffer norm_;
};

}  // namespace

void measure_verbs(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock) {
  Verbs verbs(report, plan, shape, clock);
  verbs.products();
  verbs.others();
}

}  // namespace medusa::benchmark
