#pragma once

#include <cstring>
#include <numeric>
#include <vector>

#include "backend/ops.h"
#include "model/kv_cache.h"
#include "model/llama.h"
#include "model/rope_table.h"
#include "model/tensor_store.h"
#include "model/workspace.h"

namespace medusa::benchmark {

/// What a step holds: sequences of `rows` fresh rows each behind `context` positions. A chain draws
/// one token, a tree one a node; a quarter of a tree's nodes hang below its root.
struct StepShape {
  int sequences = 1;
  int rows = 1;
  int context = 200;
  bool chain = false;
  DType cache = DType::bf16;

  int num_rows() const { return sequences * rows; }
  int num_logits_rows() const { return chain ? sequences : num_rows(); }
};

/// A step that is run again and again: backbone, greedy acceptance, commit. The cache's pages hold
/// numbers, so that reading them reads memory.
class StepPass {
 public:
  StepPass(Backend& backend, const Llama& llama, const StepShape& shape)
      : backend_(backend),
        llama_(llama),
        shape_(shape),
        workspace_(backend, llama.config(), shape.cache, shape.num_rows(), shape.num_logits_rows()),
        cache_(backend, llama.config(), shape.cache, shape.sequences,
               shape.sequences * KvCache::pages_for(shape.context + shape.rows),
               shape.context + shape.rows),
        rope_(backend, llama.config(), shape.context + shape.rows),
        store_(backend) {
    const Tensor kept = store_.add(DType::i32, 1, shape.num_rows());
    const Tensor ends = store_.add(DType::i32, 2, shape.sequences);
    decisions_ = {kept, ends.slice(0, 1), ends.slice(1, 1)};
    std::memset(cache_.layout().keys, 0x3c, cache_.layout().bytes_per_side());
    std::memset(cache_.layout().values, 0x3c, cache_.layout().bytes_per_side());
    for (int slot = 0; slot < shape.sequences; ++slot) add_sequence(slot);
  }

  void run() {
    llama_.forward(backend_, batch_, cache_.layout(), rope_.view(), workspace_);
    const LogitsProduct product =
        llama_.product(backend_, logits_rows_, batch_.num_rows(), workspace_);
    ops::accept(backend_, decisions_, product, batch_, sequences_, {});
    for (int row = 0; row < shape_.num_rows(); ++row) {
      cache_.offer(row / shape_.rows, row, batch_.positions[static_cast<size_t>(row)]);
    }
    cache_.commit(backend_, workspace_, decisions_.kept);
  }

  const StepShape& shape() const { return shape_; }
  /// Weights, and keys and values of all positions.
  double bytes() const {
    const double page = static_cast<double>(KvCache::page_bytes(llama_.config(), shape_.cache));
    return static_cast<double>(llama_.step_bytes()) +
           page / kPageSize * shape_.context * shape_.sequences;
  }

 private:
  void add_sequence(int slot) {
    cache_.reserve(slot, shape_.context + shape_.rows);
    const int first = static_cast<int>(batch_.num_rows());
    for (int row = 0; row < shape_.rows; ++row) {
      const int parent = shape_.chain ? row - 1 : row == 0 ? -1 : (row - 1) / 4;
      const int at = first + parent;
      const int position =
          parent < 0 ? shape_.context : batch_.positions[static_cast<size_t>(at)] + 1;
      batch_.add_row(row, position, parent < 0 ? -1 : at);
    }
    const int drawn = shape_.chain ? 1 : shape_.rows;
    sequences_.push_back({.first_row = first,
                          .num_rows = shape_.rows,
                          .num_logits_rows = drawn,
                          .first_logits_row = static_cast<int>(logits_rows_.size()),
                          .tree = !shape_.chain});
    for (int row = shape_.rows - drawn; row < shape_.rows; ++row) {
      logits_rows_.push_back(first + row);
    }
    const bool in_line = shape_.chain || shape_.rows == 1;
    batch_.sequences.push_back({first, shape_.rows, shape_.context, cache_.pages(slot), in_line});
  }

  Backend& backend_;
  const Llama& llama_;
  StepShape shape_;
  Workspace workspace_;
  KvCache cache_;
  RopeTable rope_;
  TensorStore store_;
  Decisions decisions_;
  RowBatch batch_;
  std::vector<int32_t> logits_rows_;
  std::vector<AcceptSequence> sequences_;
};

}  // namespace medusa::benchmark
