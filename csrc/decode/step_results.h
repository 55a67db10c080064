#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "decode/step_plan.h"
#include "model/tensor_store.h"

namespace medusa {

/// What a step leaves for the host, in one piece of the back end's memory that is read once:
/// stamps, decisions and the heads' ids.
class StepResults {
 public:
  enum Stamp : uint8_t { start, forward, accept, commit, heads, kNumStamps };

  StepResults(Backend& backend, int max_rows, int max_num_seqs, int max_guesses);

  /// Places for a step of `rows` rows, `sequences` sequences and `guesses` rows of `top_k` ids.
  void lay_out(int64_t rows, int64_t sequences, int64_t guesses, int64_t top_k);
  void stamp(Backend& backend, Stamp which) const { backend.stamp(stamp_of(which)); }
  const Decisions& decisions() const { return decisions_; }
  Tensor guesses() const { return guesses_; }

  /// Uploads what a host's walk left in the entries.
  void upload_decisions(Backend& backend, StepPlan& plan);
  /// Within the step, at its end.
  void download(Backend& backend);

  // After it.
  void receive() { found_.assign(landed_, landed_ + size_); }
  void read_decisions(StepPlan& plan, const RowBatch& batch) const;
  std::span<const int32_t> read_guess(int64_t row) const;  // (top_k)
  double seconds(Stamp from, Stamp to) const;

 private:
  Tensor stamp_of(Stamp which) const { return piece(which * 2, 1, 2); }
  Tensor piece(int64_t first, int64_t rows, int64_t cols) const {
    return {all_.row<int32_t>(0) + first, DType::i32, rows, cols};
  }
  const int32_t* found(Tensor piece) const {
    return found_.data() + (piece.row<int32_t>(0) - all_.row<int32_t>(0));
  }

  TensorStore store_;
  Tensor all_;
  Decisions decisions_;
  Tensor guesses_;
  std::vector<int32_t> decided_;  // [kept, last, roots], from a walk
  const int32_t* landed_ = nullptr;
  int64_t size_ = 0;            // used of all_
  std::vector<int32_t> found_;  // as all_
};

}  // namespace medusa
