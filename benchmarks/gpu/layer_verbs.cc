#include "gpu/layer_verbs.h"

#include <algorithm>
#include <numeric>

#include "backend/ops.h"
#include "base/check.h"
#include "model/kv_cache.h"
#include "model/rope_table.h"
#include "model/workspace.h"
#include "random_model.h"

namespace medusa::benchmark {
namespace {

constexpr int kTop = 10;      // ids of a head
constexpr int kAccepted = 4;  // rows of a step

ModelConfig one_layer(ModelConfig config) {
  config.num_hidden_layers = 1;
  return config;
}

size_t total(std::initializer_list<Tensor> tensors) {
  size_t bytes = 0;
  for (const Tensor& tensor : tensors) bytes += tensor.bytes();
  return bytes;
}

class LayerVerbs {
 public:
  LayerVerbs(Backend& backend, const VerbShapes& shapes, const VerbMeter& meter)
      : backend_(backend),
        shapes_(shapes),
        meter_(meter),
        config_(one_layer(shapes.config)),
        weights_(config_, DType::bf16),
        most_(*std::ranges::max_element(shapes.rows)),
        workspace_(backend, config_, DType::bf16, most_, most_),
        rope_(backend, config_, *std::ranges::max_element(shapes.contexts) + most_),
        store_(backend),
        norm_(store_.add(DType::f32, 1, config_.hidden_size)),
        numbers_(store_.add(DType::i32, 1, 4 * most_)),
        best_(store_.add(DType::f32, most_, kTop)),
        ids_(store_.add(DType::i32, most_, kTop)) {}

  void products() {
    const int64_t d = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t q = int64_t{config_.num_attention_heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.num_key_value_heads} * config_.head_dim;
    product("qkv", copies({q + 2 * kv, d}), Epilogue::store);
    product("o", copies({d, q}), Epilogue::add);
    product("gate_up", copies({inner, d}, DType::bf16, Pack::interleave), Epilogue::silu_mul);
    product("down", copies({d, inner}), Epilogue::add);
    for (const DType blocks : {DType::q8_0, DType::q4_0}) {
      const std::string suffix = text(", ", name(blocks));
      product("gate_up" + suffix, copies({inner, d}, blocks, Pack::interleave), Epilogue::silu_mul);
      product("down" + suffix, copies({d, inner}, blocks), Epilogue::add);
    }
    product("head's block", copies({d, d}), Epilogue::residual_silu);
  }

  void with_vocabulary() {
    const std::vector<Weight> table = copies({config_.vocab_size, config_.hidden_size});
    const std::vector<Weight> drafts = copies({shapes_.draft_vocab, config_.hidden_size});
    product("lm_head, stored", table, Epilogue::store);
    for (const int rows : shapes_.rows) {
      choose("lm_head, exact", rows, table, false);
      choose("lm_head, typical", rows, table, true);
      rank(rows, drafts);
      draw(rows);
      embed(rows, table[0]);
    }
  }

  void others() {
    for (const int rows : shapes_.rows) {
      move(rows);
      for (const int context : shapes_.contexts) attend(rows, context);
    }
    commit();
  }

 private:
  void show(std::string verb, int rows, size_t bytes, std::function<void()> run, int context = 0) {
    meter_({std::move(verb), rows, context, bytes, std::move(run)});
  }
  Tensor numbers(int64_t first, int64_t count) const {
    return {numbers_.row<int32_t>(0) + first, DType::i32, 1, count};
  }

  // Weights of one shape in turns.
  std::vector<Weight> copies(const std::vector<int64_t>& shape, DType format = DType::bf16,
                             Pack pack = Pack::concatenate) {
    HostTensor part = weights_.view(shape);
    std::vector<uint8_t> blocks;
    if (format != DType::bf16) {
      blocks = random_bytes(format, shape[0] * shape[1]);
      part = {blocks.data(), blocks.size(), format, shape};
    }
    std::vector<const HostTensor*> parts{&part};
    if (pack == Pack::interleave) parts.push_back(&part);
    std::vector<Weight> made;
    do {
      made.push_back(backend_.prepare_weight({.parts = parts, .pack = pack, .name = "random"}));
    } while (made.size() * made[0].bytes() < shapes_.working_set);
    return made;
  }

  void product(const std::string& verb, const std::vector<Weight>& weights, Epilogue epilogue) {
    const int64_t n = weights[0].out_features / (epilogue == Epilogue::silu_mul ? 2 : 1);
    const bool wide = epilogue == Epilogue::store || epilogue == Epilogue::add;
    TensorStore store(backend_);
    const Tensor all_x = store.add(DType::bf16, most_, weights[0].in_features);
    const Tensor all_out = store.add(wide ? DType::f32 : DType::bf16, most_, n);
    size_t next = 0;
    for (const int rows : shapes_.rows) {
      const Tensor x = all_x.slice(0, rows), out = all_out.slice(0, rows);
      const size_t before = epilogue == Epilogue::add ? out.bytes() : 0;
      show(verb, rows, weights[0].bytes() + x.bytes() + before + out.bytes(), [&, x, out] {
        ops::linear(backend_, out, x, weights[next++ % weights.size()], epilogue);
      });
    }
  }

  // Product, draws and the decision about a tree.
  void choose(const char* verb, int rows, const std::vector<Weight>& heads, bool judged) {
    RowBatch batch = tree_batch(rows, 0, nullptr);
    for (int32_t& token : batch.tokens) token %= config_.vocab_size;
    const AcceptSequence sequence{
        .num_rows = rows, .num_logits_rows = rows, .tree = true, .typical = judged};
    const Decisions out{numbers(0, rows), numbers(most_, 1), numbers(most_ + 1, 1)};
    const Tensor x = workspace_.hidden(rows);
    size_t next = 0;
    show(verb, rows, heads[0].bytes() + total({x, out.kept, out.last, out.roots}), [&, out, x] {
      const LogitsProduct product{
          .x = x, .weight = &heads[next++ % heads.size()], .logits = workspace_.logits(rows)};
      check(ops::accept(backend_, out, product, batch, {&sequence, 1}, {-2.4f, -1.2f}), verb,
            ": expected the device to decide");
    });
  }

  void rank(int rows, const std::vector<Weight>& projections) {
    const Tensor x = workspace_.hidden(rows), best = best_.slice(0, rows),
                 ids = ids_.slice(0, rows);
    size_t next = 0;
    show("head's ranks", rows, projections[0].bytes() + total({x, best, ids}), [&, x, best, ids] {
      const Weight& weight = projections[next++ % projections.size()];
      ops::linear_top_k(backend_, best, ids, x, {&weight, 1});
    });
  }

  // Of stored logits, for requests that the host answers; both wait.
  void draw(int rows) {
    const auto count = static_cast<size_t>(rows);
    const Tensor logits = workspace_.logits(rows);
    std::vector<SampleRow> draws(count);
    std::vector<int32_t> drawn(count);
    std::vector<float> found(count), entropies(count);
    std::vector<PosteriorRow> judged;
    for (size_t r = 0; r < count; ++r) {
      draws[r] = {.row = static_cast<int64_t>(r), .temperature = 1};
      judged.push_back({.draw = draws[r],
                        .tokens = std::span(drawn).subspan(r, 1),
                        .log_probs = std::span(found).subspan(r, 1),
                        .entropy = &entropies[r]});
    }
    show("sample, with its wait", rows, logits.bytes() + count * sizeof(int32_t),
         [&] { ops::sample(backend_, drawn, logits, draws); });
    show("posterior, with its wait", rows, logits.bytes() + count * 2 * sizeof(float),
         [&] { ops::posterior(backend_, logits, judged); });
  }

  void embed(int rows, const Weight& table) {
    std::vector<int32_t> tokens(static_cast<size_t>(rows));
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>(i * 37 % static_cast<size_t>(config_.vocab_size));
    }
    const Tensor x = workspace_.residual(rows), hidden = workspace_.hidden(rows);
    const size_t row_bytes = static_cast<size_t>(config_.hidden_size) * 2;
    const size_t embedded = tokens.size() * row_bytes;
    show("embed", rows, embedded + x.bytes(), [&, x] { ops::embed(backend_, x, table, tokens); });
    const Tensor ids = numbers(0, rows);
    TensorStore store(backend_);
    const Tensor both = store.add(DType::bf16, rows, 2 * config_.hidden_size);
    backend_.upload(ids, tokens.data());
    show("append_embedding", rows, embedded + total({ids, hidden, both}),
         [&, both, hidden, ids] { ops::append_embedding(backend_, both, hidden, table, ids); });
  }

  void move(int rows) {
    const std::span<const float> norm(norm_.row<float>(0), static_cast<size_t>(norm_.cols));
    const Tensor x = workspace_.residual(rows), normed = workspace_.normed(rows);
    show("rms_norm", rows, total({x, norm_, normed}),
         [&, x, normed] { ops::rms_norm(backend_, normed, x, norm, 1e-5f); });
    const std::vector<int32_t> positions(static_cast<size_t>(rows), 5);
    const QkvSplit split{.q = workspace_.q(rows),
                         .keys = workspace_.keys(0, rows),
                         .values = workspace_.values(0, rows),
                         .num_heads = config_.num_attention_heads,
                         .num_kv_heads = config_.num_key_value_heads,
                         .head_dim = config_.head_dim};
    const Tensor qkv = workspace_.qkv(rows);
    const size_t angles = static_cast<size_t>(config_.head_dim) * sizeof(float);
    show("rope", rows, angles + total({qkv, split.q, split.keys, split.values}),
         [&, qkv, split] { ops::rope(backend_, split, qkv, positions, rope_.view()); });
    std::vector<int32_t> order(static_cast<size_t>(rows));
    std::iota(order.rbegin(), order.rend(), 0);
    const Tensor picks = numbers(0, rows), to = workspace_.picked(rows);
    backend_.upload(picks, order.data());
    show("gather_rows", rows, 2 * to.bytes() + picks.bytes(),
         [&, to, picks] { ops::gather_rows(backend_, to, workspace_.hidden(rows), picks); });
  }

  void attend(int rows, int context) {
    KvCache cache(backend_, config_, DType::bf16, 1, KvCache::pages_for(context + most_),
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
    const size_t prefix =
        2 * static_cast<size_t>(context * config_.num_key_value_heads * config_.head_dim) *
        sizeof(bf16);
    show(
        "tree_attention", rows, prefix + total({in.q, in.keys, in.values, out}),
        [&, out, in] { ops::tree_attention(backend_, out, in, batch); }, context);
  }

  void commit() {
    const int rows = std::min(kAccepted, most_);
    KvCache cache(backend_, config_, DType::bf16, 1, 1, rows);
    cache.reserve(0, rows);
    std::vector<CommitRow> accepted;
    for (int r = 0; r < rows; ++r) accepted.push_back({r, cache.pages(0)[0], r});
    show("commit", rows, 2 * total({workspace_.keys(0, rows), workspace_.values(0, rows)}), [&] {
      ops::commit(backend_, cache.layout(), workspace_.all_keys(), workspace_.all_values(),
                  accepted);
    });
  }

  Backend& backend_;
  const VerbShapes& shapes_;
  const VerbMeter& meter_;
  const ModelConfig config_;
  const RandomModel weights_;
  const int most_;
  Workspace workspace_;
  RopeTable rope_;
  TensorStore store_;
  Tensor norm_, numbers_, best_, ids_;
};

}  // namespace

void for_every_verb(Backend& backend, const VerbShapes& shapes, const VerbMeter& meter) {
  LayerVerbs verbs(backend, shapes, meter);
  verbs.products();
  verbs.with_vocabulary();
  verbs.others();
}

}  // namespace medusa::benchmark
