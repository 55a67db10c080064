// Whole forward passes of a random model, then whole answers: plainly, with heads (the ids must be
// equal), and as heads of a given quality would give them.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "backend/ops.h"
#include "gpu/bench.h"
#include "medusa/engine.h"
#include "model/kv_cache.h"
#include "model/model_impl.h"
#include "model/rope_table.h"
#include "model/workspace.h"
#include "random_model.h"

namespace medusa::benchmark {
namespace {

constexpr int kHeads = 4;
constexpr double kLengths[] = {2.31, 3.4};  // of Medusa-1 and Medusa-2 heads for Vicuna-7B

// An answer's tokens, and what its steps took after the first token.
struct Answer {
  std::vector<int32_t> tokens;
  double seconds = 0, steps = 0;
  double accept = 0, outside = 0;  // seconds; outside of forward pass, acceptance and heads
  double mean_length() const { return static_cast<double>(tokens.size() - 1) / steps; }
};

// Of a forward pass: as one graph, between two stamps of the device's clock, and launch by launch.
struct Pass {
  double seconds, launched;
};

double decided_or_guessed(const StepTimes& times) {
  return times.forward + times.accept + times.heads;
}

class Steps {
 public:
  Steps(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock)
      : report_(report),
        plan_(plan),
        name_(shape.name),
        clock_(clock),
        random_(shape.config, DType::bf16),
        model_(Model::load(shape.config, random_.tensors,
                           {.device = "cuda", .stream = clock.stream().handle()})) {}

  void passes() {
    const double read = clock_.read_of(std::min(step_bytes(0), clock_.bytes()), plan_.repeats);
    const double rate = static_cast<double>(std::min(step_bytes(0), clock_.bytes())) / read / 1e9;
    for (const int context : plan_.contexts) {
      double alone = 0;
      for (const int rows : plan_.rows) {
        const auto [seconds, launched] = pass(rows, context);
        if (rows == 1) alone = seconds;
        const double bytes = static_cast<double>(step_bytes(context));
        report_.add("step", {{"model", name_},
                             {"rows", double(rows)},
                             {"context", double(context)},
                             {"us", seconds * 1e6},
                             {"launched_us", launched * 1e6},
                             {"bytes", bytes},
                             {"GB/s", bytes / seconds / 1e9},
                             {"of_stream", bytes / seconds / 1e9 / rate},
                             {"to_one_row", seconds / alone}});
      }
    }
  }

  // Whether all ids are those of plain decoding.
  bool answers() {
    const Answer plain = decode({}, Tree::root_only(), 0);
    add_answer("plain", plain, plain);
    bool same = true;
    for (const bool trimmed : {false, true}) {
      const Heads heads = random_heads(trimmed);
      const char* kind = trimmed ? "own projections, trimmed" : "the base's lm_head";
      const Tree tree = Tree::stock("mc_sim_7b_63");
      const Answer exact = decode(heads, tree, 0);
      add_answer(kind, exact, plain);
      same = same && exact.tokens == plain.tokens;
      for (const double length : kLengths) {
        add_answer(kind, decode(heads, tree, length), plain, length);
      }
    }
    report_.add("ids", {{"model", name_}, {"medusa_equals_plain", same ? "yes" : "NO"}});
    return same;
  }

 private:
  const ModelConfig& config() const { return model_.config(); }
  size_t step_bytes(int context) const {
    return model_.step_bytes() + size_t{4} * static_cast<size_t>(context) *
                                     config().num_key_value_heads *
                                     static_cast<size_t>(config().head_dim) *
                                     static_cast<size_t>(config().num_hidden_layers);
  }

  // The backbone and its lm_head over a tree, whose tokens are drawn and accepted.
  Pass pass(int rows, int context) {
    Backend& backend = *model_.impl()->backend;
    const Llama& llama = model_.impl()->llama;
    Workspace workspace(backend, config(), DType::bf16, rows, rows);
    KvCache cache(backend, config(), DType::bf16, 1, KvCache::pages_for(context + rows),
                  context + rows);
    cache.reserve(0, context + rows);
    const RopeTable rope(backend, config(), context + rows);
    RowBatch batch = tree_batch(rows, context, cache.pages(0));
    for (int32_t& token : batch.tokens) token %= config().vocab_size;
    std::vector<int32_t> all(static_cast<size_t>(rows));
    std::iota(all.begin(), all.end(), 0);
    TensorStore store(backend);
    const Tensor kept = store.add(DType::i32, 1, rows), ends = store.add(DType::i32, 2, 1);
    const AcceptSequence sequence{.num_rows = rows, .num_logits_rows = rows, .tree = true};
    const Decisions decisions{kept, ends.slice(0, 1), ends.slice(1, 1)};
    const auto once = [&] {
      llama.forward(backend, batch, cache.layout(), rope.view(), workspace);
      const LogitsProduct product = llama.product(backend, all, rows, workspace);
      ops::accept(backend, decisions, product, batch, {&sequence, 1}, {});
    };
    return {graph_seconds(backend, once), clock_.seconds(once, 1, plan_.repeats)};
  }

  // Between stamps before and after, from the third time on: only then it is a graph.
  double graph_seconds(Backend& backend, const std::function<void()>& once) const {
    TensorStore store(backend);
    const Tensor stamps = store.add(DType::i32, 2, 2);
    std::vector<double> rounds;
    for (int round = 0; round < plan_.repeats + 2; ++round) {
      const void* landed = nullptr;
      backend.replay([&] {
        backend.stamp(stamps.slice(0, 1));
        once();
        backend.stamp(stamps.slice(1, 1));
        landed = backend.download(stamps);
      });
      int64_t times[2];
      std::memcpy(times, landed, sizeof times);
      if (round >= 2) rounds.push_back(static_cast<double>(times[1] - times[0]) * 1e-9);
    }
    return median(rounds);
  }

  Heads random_heads(bool trimmed) const {
    Heads::Source source;
    const int64_t d = config().hidden_size, vocab = plan_.draft_vocab;
    for (int head = 0; head < kHeads; ++head) {
      source.residual.push_back({{random_.view({d, d}), {}}});
      if (trimmed) source.projection.push_back(random_.view({vocab, d}));
    }
    if (trimmed) {
      source.token_map.resize(static_cast<size_t>(vocab));
      std::iota(source.token_map.begin(), source.token_map.end(), 0);
    }
    return Heads::load(model_, source);
  }

  // `length`: of synthetic acceptance; 0: exact.
  Answer decode(std::optional<Heads> heads, const Tree& tree, double length) {
    Engine engine(model_, std::move(heads), tree,
                  {.max_num_seqs = 1,
                   .max_model_len = 2 * plan_.answer + Tree::kMaxNodes,
                   .synthetic_acceptance_length = static_cast<float>(length)});
    std::mt19937 random(1);
    std::vector<int32_t> prompt(static_cast<size_t>(plan_.answer) / 2);
    for (int32_t& token : prompt) {
      token = static_cast<int32_t>(random() % static_cast<uint32_t>(config().vocab_size));
    }
    SamplingParams params;
    params.max_tokens = plan_.answer;
    const int64_t id = engine.submit(prompt, params);
    Answer answer;
    StepTimes before;
    while (engine.has_unfinished()) {
      for (const StepOutput& output : engine.step()) {
        if (answer.tokens.empty()) before = engine.metrics(id).step_times;
        answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      }
    }
    const Metrics metrics = engine.metrics(id);
    answer.seconds = metrics.decode_time;
    answer.steps = static_cast<double>(metrics.num_steps);
    answer.accept = metrics.step_times.accept - before.accept;
    answer.outside =
        answer.seconds - (decided_or_guessed(metrics.step_times) - decided_or_guessed(before));
    return answer;
  }

  void add_answer(std::string_view heads, const Answer& answer, const Answer& plain,
                  double synthetic = 0) {
    const double count = static_cast<double>(answer.tokens.size() - 1);
    const double rate = count / answer.seconds;
    const double speedup = rate / (static_cast<double>(plain.tokens.size() - 1) / plain.seconds);
    const double step = answer.seconds / answer.steps;
    report_.add("answer", {{"model", name_},
                           {"heads", heads},
                           {"synthetic", synthetic},
                           {"tokens/s", rate},
                           {"step_us", step * 1e6},
                           {"accept_us", answer.accept / answer.steps * 1e6},
                           {"outside_us", answer.outside / answer.steps * 1e6},
                           {"step_to_plain", step / (plain.seconds / plain.steps)},
                           {"tokens_a_step", answer.mean_length()},
                           {"speedup", speedup},
                           {"speedup_over_length", speedup / answer.mean_length()}});
  }

  Report& report_;
  const Plan& plan_;
  const std::string name_;
  DeviceClock& clock_;
  const RandomModel random_;
  const Model model_;
};

}  // namespace

bool measure_steps(Report& report, const Plan& plan, const Plan::Shape& shape, DeviceClock& clock) {
  Steps steps(report, plan, shape, clock);
  steps.passes();
  return steps.answers();
}

}  // namespace medusa::benchmark
