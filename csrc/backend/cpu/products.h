#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"
#include "base/thread_pool.h"

namespace medusa::cpu {

/// Products with packed weights: activations in the form that the weight's kernels read, panels
/// shared out to threads. One call at a time.
class Products {
 public:
  Products(const KernelTable& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  void linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue);
  /// The best columns of x · Wᵀ + bias: values f32 and ids i32 (rows, k), best first, ties by the
  /// lowest id, never a NaN; ids of places without a finite value are the lowest that are left. The
  /// product itself is not written down.
  void top_k(Tensor values, Tensor ids, Tensor x, const Weight& weight);

 private:
  LinearArgs arguments(Tensor x, const Weight& weight);
  template <class Args>
  void run(const Weight& weight, const Args& args_of);
  void multiply(LinearArgs args, const Weight& weight, const WeightSegment& segment, int64_t first,
                int64_t last) const;
  const QuantizedGroup* quantized(Tensor x);
  void adapt_activations(LinearArgs& a, Tensor x);
  Ranking empty_ranking(int64_t rows, int64_t k);

  const KernelTable& kernels_;
  ThreadPool& pool_;
  Scratch rows_, groups_, ranking_;
};

}  // namespace medusa::cpu
