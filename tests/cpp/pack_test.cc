#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "base/check.h"
#include "kernel_case.h"
#include "medusa/error.h"

namespace medusa {
namespace {

class PackTest : public testing::TestWithParam<KernelCase> {
 protected:
  // Rows of a packed weight, read back.
  Matrix unpack(Backend& backend, const Weight& weight) {
    std::vector<int32_t> ids;
    for (int32_t i = 0; i < weight.out_features; ++i) ids.push_back(i);
    Matrix out(DType::f32, weight.out_features, weight.in_features);
    ops::embed(backend, out, weight, ids);
    return out;
  }
  double stored(double value) const {
    return GetParam().dtype() == DType::f32 ? value : to_float(to_bf16(static_cast<float>(value)));
  }
};
MEDUSA_FOR_EVERY_ISA(PackTest);

TEST_P(PackTest, concatenates_parts_and_biases) {
  const auto backend = GetParam().backend(2);
  const Matrix a = random_matrix(DType::f32, 20, 64, 1), b = random_matrix(DType::bf16, 7, 64, 2);
  const Matrix bias = random_matrix(DType::f32, 1, 7, 3);
  const HostTensor ta = host_tensor(a), tb = host_tensor(b), tbias = host_vector(bias);
  const Weight weight =
      backend->prepare_weight({.parts = {&ta, &tb}, .biases = {nullptr, &tbias}, .name = "w"});
  EXPECT_EQ(weight.out_features, 27);
  const Matrix rows = unpack(*backend, weight);
  for (int64_t r = 0; r < 27; ++r) {
    for (int64_t c = 0; c < 64; ++c) {
      ASSERT_EQ(rows.at(r, c), stored(r < 20 ? a.at(r, c) : b.at(r - 20, c)));
    }
    EXPECT_EQ(static_cast<const float*>(weight.bias.data())[r], r < 20 ? 0 : bias.at(0, r - 20));
  }
}

TEST_P(PackTest, interleaves_blocks_of_two_parts) {
  const auto backend = GetParam().backend();
  const Matrix a = random_matrix(DType::f32, 48, 32, 4), b = random_matrix(DType::f32, 48, 32, 5);
  const HostTensor ta = host_tensor(a), tb = host_tensor(b);
  const Weight weight =
      backend->prepare_weight({.parts = {&ta, &tb}, .pack = Pack::interleave, .name = "w"});
  const Matrix rows = unpack(*backend, weight);
  for (int64_t r = 0; r < 96; ++r) {
    const Matrix& part = r / 16 % 2 == 0 ? a : b;
    EXPECT_EQ(rows.at(r, 5), stored(part.at(r / 32 * 16 + r % 16, 5)));
  }
}

TEST_P(PackTest, selects_rows) {
  const auto backend = GetParam().backend();
  const Matrix a = random_matrix(DType::f32, 48, 32, 6);
  const HostTensor ta = host_tensor(a);
  const std::vector<int32_t> wanted = {47, 3, 3, 0};
  const Matrix rows =
      unpack(*backend, backend->prepare_weight({.parts = {&ta}, .rows = wanted, .name = "w"}));
  for (int64_t r = 0; r < 4; ++r) {
    EXPECT_EQ(rows.at(r, 31), stored(a.at(wanted[static_cast<size_t>(r)], 31)));
  }
  const std::vector<int32_t> outside = {48};
  EXPECT_THROW(backend->prepare_weight({.parts = {&ta}, .rows = outside}), ModelFormatError);
}

TEST_P(PackTest, names_the_tensor_with_values_that_are_not_finite) {
  const auto backend = GetParam().backend(2);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Matrix a = random_matrix(dtype, 40, 64, 7);
      a.set(33, 63, bad);
      const HostTensor ta = host_tensor(a);
      try {
        backend->prepare_weight({.parts = {&ta}, .name = "model.layers.3.mlp"});
        ADD_FAILURE() << "expected ModelFormatError";
      } catch (const ModelFormatError& error) {
        EXPECT_NE(std::string(error.what()).find("model.layers.3.mlp"), std::string::npos);
      }
    }
  }
}

TEST_P(PackTest, refuses_tensors_that_do_not_fit) {
  const auto backend = GetParam().backend();
  const Matrix a = random_matrix(DType::f32, 32, 64, 8), odd = random_matrix(DType::f32, 32, 40, 9);
  const auto refuse = [&](HostTensor tensor) {
    EXPECT_THROW(backend->prepare_weight({.parts = {&tensor}, .name = "w"}), ModelFormatError);
  };
  refuse(host_tensor(odd));
  HostTensor t = host_tensor(a);
  t.bytes -= 1;
  refuse(t);
  t.bytes += 2;
  refuse(t);
  t = host_tensor(a);
  t.shape = {32 * 64};
  refuse(t);
  t.shape = {-32, -64};
  refuse(t);
  t.shape = {0, 64};
  refuse(t);
  t.shape = {int64_t{1} << 40, int64_t{1} << 40};
  refuse(t);
  t = host_tensor(a);
  t.dtype = DType::i32;
  refuse(t);
  t.dtype = DType::q4_k;
  refuse(t);
  const HostTensor other = host_tensor(odd), good = host_tensor(a);
  EXPECT_THROW(backend->prepare_weight({.parts = {&good, &other}}), ModelFormatError);
  EXPECT_THROW(backend->prepare_weight({.parts = {&good}, .biases = {&good}}), ModelFormatError);
  const Matrix small = random_matrix(DType::f32, 16, 64, 10);
  const HostTensor half = host_tensor(small);
  EXPECT_THROW(backend->prepare_weight({.parts = {&good, &half}, .pack = Pack::interleave}),
               ModelFormatError);
}

TEST(Isa, lists_what_the_machine_runs_best_first) {
  const auto isas = cpu::supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.back(), cpu::Isa::generic);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
}

TEST(Isa, can_be_overridden_by_the_environment) {
  for (cpu::Isa isa : cpu::supported_isas()) {
    setenv("MEDUSA_CPU_ISA", std::string(cpu::name(isa)).c_str(), 1);
    EXPECT_EQ(cpu::choose_isa(), isa);
    const auto backend = make_cpu_backend({.num_threads = 1});
    EXPECT_EQ(backend->name(), text("cpu (", cpu::name(isa), ", 1 thread)"));
  }
  setenv("MEDUSA_CPU_ISA", "sse9", 1);
  EXPECT_THROW(cpu::choose_isa(), DeviceError);
  unsetenv("MEDUSA_CPU_ISA");
  EXPECT_EQ(cpu::choose_isa(), cpu::supported_isas().front());
}

}  // namespace
}  // namespace medusa
