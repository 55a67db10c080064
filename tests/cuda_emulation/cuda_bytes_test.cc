// Bytes that each verb moves, counted while it runs on the emulated device, against the fewest
// possible. docs/kernels.md holds the table; cuda_bytes_test prints it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "access_counter.h"
#include "gpu/layer_verbs.h"
#include "gpu/probes.h"

namespace medusa {
namespace {

using benchmark::VerbCall;
using emulation::Traffic;

struct Counted {
  double fewest;
  Traffic traffic;
  double moved() const { return static_cast<double>(traffic.moved) / fewest; }
  double asked() const { return static_cast<double>(traffic.asked) / fewest; }
};
using Table = std::map<std::string, std::vector<Counted>>;  // by verb, then by number of rows

// A layer of SmolLM2-135M, over a small vocabulary.
benchmark::VerbShapes shapes() {
  ModelConfig config;
  config.vocab_size = 1024;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 9;
  config.num_key_value_heads = 3;
  config.head_dim = 64;
  config.max_position_embeddings = 4096;
  return {config, {1, 16, 64}, {1000}, 512, 0};
}

// Products whose kernels depend on the device.
bool is_product(const std::string& verb) {
  return verb == "qkv" || verb == "o" || verb == "gate_up" || verb == "down" ||
         verb == "lm_head, exact";
}

Table count(const char* kernels, bool (*asked)(const std::string&), const std::string& suffix) {
  setenv("MEDUSA_CUDA_KERNELS", kernels, 1);
  const auto backend = make_cuda_backend({.compute_type = ComputeType::bfloat16}, 0);
  const Buffer word = backend->allocate(4);
  const auto wait = [&] { backend->download({word.data(), DType::i32, 1, 1}); };
  Table table;
  benchmark::for_every_verb(*backend, shapes(), [&](const VerbCall& call) {
    if (!asked(call.verb)) return;
    const Traffic traffic = emulation::traffic_of([&] {
      call.run();
      wait();
    });
    table[call.verb + suffix].push_back({static_cast<double>(call.bytes), traffic});
  });
  return table;
}

Table count_all() {
  Table table = count("portable", [](const std::string&) { return true; }, "");
  table.merge(count("sm90", is_product, ", sm90"));
  return table;
}

const Table& counted() {
  static const Table table = count_all();
  return table;
}

std::string cells(const std::vector<Counted>& of_rows, const char* format, auto&& figure) {
  std::string text;
  for (const Counted& counted : of_rows) {
    char cell[32];
    std::snprintf(cell, sizeof cell, format, figure(counted));
    text += (text.empty() ? "" : " / ") + std::string(cell);
  }
  return text;
}

std::vector<std::string> lines() {
  std::vector<std::string> all;
  for (const auto& [verb, of_rows] : counted()) {
    all.push_back("| " + verb + " | " +
                  cells(of_rows, "%.1f", [](const Counted& c) { return c.fewest / 1e3; }) + " | " +
                  cells(of_rows, "%.2f", [](const Counted& c) { return c.moved(); }) + " | " +
                  cells(of_rows, "%.2f", [](const Counted& c) { return c.asked(); }) + " |");
  }
  return all;
}

TEST(CudaBytes, a_read_of_n_bytes_is_n_bytes) {
  const size_t bytes = size_t{1} << 20;
  const Buffer data = cuda::device_memory(bytes), sink = cuda::device_memory(4);
  const cuda::Stream stream;
  const Traffic once = emulation::traffic_of([&] {
    cuda::read_stream(stream, data.data(), bytes, static_cast<uint32_t*>(sink.data()));
    stream.synchronize();
  });
  EXPECT_EQ(once.moved, bytes);
  EXPECT_EQ(once.asked, bytes);
  const Traffic twice = emulation::traffic_of([&] {
    for (int i = 0; i < 2; ++i) {
      cuda::read_stream(stream, data.data(), bytes, static_cast<uint32_t*>(sink.data()));
    }
    stream.synchronize();
  });
  EXPECT_EQ(twice.moved, bytes);
  EXPECT_EQ(twice.asked, 2 * bytes);
}

TEST(CudaBytes, no_verb_moves_less_than_the_fewest) {
  for (const auto& [verb, of_rows] : counted()) {
    for (const Counted& c : of_rows) EXPECT_GE(c.moved(), 0.999) << verb;
  }
}

TEST(CudaBytes, the_table_is_that_of_the_document) {
  std::ifstream document(MEDUSA_KERNELS_DOCUMENT);
  ASSERT_TRUE(document.is_open());
  const std::string text(std::istreambuf_iterator<char>(document), {});
  bool fresh = true;
  for (const std::string& line : lines()) fresh &= text.find(line + "\n") != std::string::npos;
  EXPECT_TRUE(fresh) << "docs/kernels.md is to hold these lines";
  if (!fresh) {
    for (const std::string& line : lines()) std::printf("%s\n", line.c_str());
  }
}

}  // namespace
}  // namespace medusa
