// Products that leave no logits, against the same products with their logits in memory.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "backend/cuda/logits_products.h"
#include "device_case.h"
#include "linear_case.h"

namespace medusa {
namespace {

struct Shape {
  int64_t rows, k, vocab;
};
// Of one tile of ids and of several, of k in one part and in four.
constexpr Shape kShapes[] = {{1, 32, 1},     {3, 32, 7},   {64, 32, 101}, {3, 32, 128},
                             {1, 1056, 300}, {3, 32, 259}, {200, 32, 131}};

// An lm_head some of whose rows are equal, in one tile and in two; `top` puts them above all
// others.
Weight tied_head(Backend& backend, int64_t vocab, int64_t k, float top) {
  const float scale = 1 / std::sqrt(static_cast<float>(k));
  Matrix weight = random_matrix(backend.compute_dtype(), vocab, k, 3, scale);
  Matrix bias = random_matrix(DType::f32, 1, vocab, 4);
  for (int64_t id = 5; id < vocab; id += 31) {
    weight.copy_row(id, weight, 5);
    bias.set(0, id, top);
  }
  const HostTensor w = host_tensor(weight), b = host_vector(bias);
  return backend.prepare_weight({.parts = {&w}, .biases = {&b}, .name = "lm_head"});
}

struct Judgement {
  std::vector<float> entropies, log_probs;
};

// A product, its logits as stored, and both ways to ask about them.
class Case {
 public:
  Case(Backend& backend, const Shape& shape, const Weight& weight)
      : backend_(backend),
        weight_(weight),
        x_(backend, random_matrix(backend.compute_dtype(), shape.rows, shape.k, 8, 2.0f)),
        logits_(backend, Matrix(DType::f32, shape.rows, shape.vocab)) {
    ops::linear(backend, logits_, x_, weight, Epilogue::store);
    stored_.emplace(logits_.fetch());  // waits: what follows has another stream
  }
  const Matrix& stored() const { return *stored_; }

  static SampleRow row_for(int64_t row, float temperature) {
    return {.row = row,
            .temperature = temperature,
            .seed = 77 + 5 * static_cast<uint64_t>(row),
            .position = 900 + row};
  }
  std::vector<int32_t> sampled(float temperature) {
    std::vector<SampleRow> rows;
    for (int64_t r = 0; r < x_.view().rows; ++r) rows.push_back(row_for(r, temperature));
    std::vector<int32_t> ids(rows.size());
    ops::sample(backend_, ids, logits_, rows);
    return ids;
  }
  // The product of rows first .. first + count - 1 alone.
  std::vector<int32_t> chosen(float temperature, int64_t first, int64_t count) {
    std::vector<cuda::LogitsRow> rows;
    for (int64_t r = first; r < first + count; ++r) {
      const SampleRow row = row_for(r, temperature);
      rows.push_back({.seed = row.seed, .position = row.position, .temperature = temperature});
    }
    const auto* ids = products_.choose(queue_, product(first, count), rows, {});
    return fetched(ids, count);
  }
  // Each row with `tokens`.
  Judgement judged(float temperature, const std::vector<int32_t>& tokens, int64_t first,
                   int64_t count) {
    std::vector<cuda::LogitsRow> rows;
    std::vector<int32_t> all;
    for (int64_t i = 0; i < count; ++i) {
      rows.push_back({.judged_temperature = temperature,
                      .first_token = static_cast<int32_t>(all.size()),
                      .num_tokens = static_cast<int32_t>(tokens.size()),
                      .entropy = static_cast<int32_t>(i)});
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
    const auto size = static_cast<int64_t>(all.size());
    cuda::Mirror mirror;
    cuda::DeviceScratch out;
    auto* floats = out.reserve<float>(queue_.stream, count + 2 * size);
    products_.choose(queue_, product(first, count), rows,
                     {.tokens = mirror.of(queue_, std::span<const int32_t>(all)),
                      .token_logits = floats + count + size,
                      .log_probs = floats + count,
                      .entropies = floats});
    return {fetched(floats, count), fetched(floats + count, size)};
  }

 private:
  LogitsProduct product(int64_t first, int64_t count) const {
    return {x_.view().slice(first, count), &weight_, logits_.view().slice(first, count), false};
  }
  template <class T>
  std::vector<T> fetched(const T* from, int64_t count) {
    const auto bytes = static_cast<size_t>(count) * sizeof(T);
    const auto* host = static_cast<const T*>(queue_.fetch(from, bytes));
    return {host, host + count};
  }

  Backend& backend_;
  const Weight& weight_;
  Resident x_, logits_;
  std::optional<Matrix> stored_;
  cuda::Queue queue_{nullptr, cuda::kernel_set_of(cuda::describe(0))};
  cuda::LogitsProducts products_;
};

class CudaLogitsTest : public DeviceTest {};
MEDUSA_FOR_EVERY_DEVICE_CASE(CudaLogitsTest);

TEST_P(CudaLogitsTest, draws_are_those_from_stored_logits) {
  for (const Shape& shape : kShapes) {
    for (const float top : {0.5f, 20.0f}) {
      const Weight head = tied_head(*backend, shape.vocab, shape.k, top);
      Case c(*backend, shape, head);
      for (const float temperature : {0.0f, 0.8f, 1e-40f}) {
        const auto all = c.chosen(temperature, 0, shape.rows);
        EXPECT_EQ(all, c.sampled(temperature)) << shape.vocab << " at " << temperature;
        EXPECT_EQ(c.chosen(temperature, shape.rows - 1, 1)[0], all.back());
        if (top > 10 && temperature == 0 && shape.vocab > 5) {
          EXPECT_EQ(all, std::vector<int32_t>(all.size(), 5));  // of those that tie the first
        }
      }
    }
  }
}

// Of softmax(logits / temperature), in float64: the entropy, and each token's log-probability.
double log_sum(const Matrix& logits, int64_t row, double temperature) {
  double sum = 0;
  for (int64_t i = 0; i < logits.view().cols; ++i) sum += std::exp(logits.at(row, i) / temperature);
  return std::log(sum);
}

TEST_P(CudaLogitsTest, entropies_and_log_probabilities_are_those_of_the_softmax) {
  for (const Shape& shape : kShapes) {
    const Weight head = tied_head(*backend, shape.vocab, shape.k, 0.5f);
    Case c(*backend, shape, head);
    const auto last = static_cast<int32_t>(shape.vocab - 1);
    const std::vector<int32_t> tokens = {last, 0, last / 2};
    for (const float temperature : {0.7f, 1.3f}) {
      const Judgement found = c.judged(temperature, tokens, 0, shape.rows);
      for (int64_t r = 0; r < shape.rows; ++r) {
        const double sum = log_sum(c.stored(), r, temperature);
        double entropy = 0;
        for (int64_t i = 0; i < shape.vocab; ++i) {
          const double log_prob = c.stored().at(r, i) / temperature - sum;
          entropy -= std::exp(log_prob) * log_prob;
        }
        ASSERT_NEAR(found.entropies[r], entropy, 2e-5) << shape.vocab;
        for (size_t i = 0; i < tokens.size(); ++i) {
          ASSERT_NEAR(found.log_probs[r * tokens.size() + i],
                      c.stored().at(r, tokens[i]) / temperature - sum, 2e-5);
        }
      }
    }
  }
}

TEST_P(CudaLogitsTest, a_judgement_depends_on_its_own_row_only) {
  const Shape shape{200, 32, 131};
  const Weight head = tied_head(*backend, shape.vocab, shape.k, 0.5f);
  Case c(*backend, shape, head);
  const std::vector<int32_t> tokens = {130, 3};
  const Judgement all = c.judged(0.9f, tokens, 0, shape.rows);
  for (const int64_t count : {1, 3, 64}) {
    for (const int64_t first : {int64_t{0}, int64_t{77}, shape.rows - count}) {
      const Judgement some = c.judged(0.9f, tokens, first, count);
      for (int64_t r = 0; r < count; ++r) {
        EXPECT_EQ(some.entropies[r], all.entropies[first + r]);
        for (size_t i = 0; i < 2; ++i) {
          EXPECT_EQ(some.log_probs[r * 2 + i], all.log_probs[(first + r) * 2 + i]);
        }
      }
    }
  }
}

TEST_P(CudaLogitsTest, of_a_cold_row_the_likeliest_token_is_certain) {
  const Shape shape{3, 32, 259};
  const Weight head = tied_head(*backend, shape.vocab, shape.k, 20.0f);
  const Judgement found = Case(*backend, shape, head).judged(0.0f, {5, 36}, 0, 3);
  EXPECT_EQ(found.entropies, std::vector<float>(3, 0.0f));
  for (size_t r = 0; r < 3; ++r) {
    EXPECT_EQ(found.log_probs[r * 2], 0.0f);
    EXPECT_EQ(found.log_probs[r * 2 + 1], -INFINITY);
  }
}

// Best first, lowest ids first among equals; what is no number is worst.
std::vector<int32_t> ranked(const Matrix& logits, int64_t row) {
  const auto value = [&](int32_t id) {
    const double v = logits.at(row, id);
    return std::isnan(v) ? -INFINITY : v;
  };
  std::vector<int32_t> ids(static_cast<size_t>(logits.view().cols));
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, [&](int32_t a, int32_t b) { return value(a) > value(b); });
  return ids;
}

TEST_P(CudaLogitsTest, top_k_is_that_of_stored_logits) {
  for (const Shape& shape : {Shape{1, 32, 70}, {3, 1056, 300}, {64, 32, 131}}) {
    const Weight weights[] = {tied_head(*backend, shape.vocab, shape.k, 0.5f),
                              tied_head(*backend, shape.vocab, shape.k, 3.0f)};
    const int64_t rows = 2 * shape.rows;
    const Resident x(*backend, random_matrix(dtype(), rows, shape.k, 8)),
        logits(*backend, Matrix(DType::f32, rows, shape.vocab));
    for (int64_t i = 0; i < 2; ++i) {
      ops::linear(*backend, logits.view().slice(i * shape.rows, shape.rows),
                  x.view().slice(i * shape.rows, shape.rows), weights[i], Epilogue::store);
    }
    const Matrix stored = logits.fetch();
    for (const int64_t k : {1, 10, 64}) {
      const Resident values(*backend, Matrix(DType::f32, rows, k)),
          ids(*backend, Matrix(DType::i32, rows, k));
      ops::linear_top_k(*backend, values, ids, x, weights);
      const Matrix best = values.fetch(), found = ids.fetch();
      for (int64_t r = 0; r < rows; ++r) {
        const auto expected = ranked(stored, r);
        for (int64_t i = 0; i < k; ++i) {
          const int32_t id = found.view().row<int32_t>(r)[i];
          ASSERT_EQ(id, expected[static_cast<size_t>(i)]) << shape.vocab << ", " << k;
          const double logit = stored.at(r, id);
          ASSERT_EQ(best.at(r, i), std::isnan(logit) ? -INFINITY : logit);
        }
      }
    }
  }
}

}  // namespace
}  // namespace medusa
