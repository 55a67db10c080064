#pragma once

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/scratch.h"
#include "base/thread_pool.h"

namespace medusa::cpu {

/// Splits a batch's attention over the pool by queries, evenly in positions visited, and runs it.
/// `scratch` holds every thread's scores and tiles.
void tree_attention(const KernelTable& kernels, ThreadPool& pool, Scratch& scratch, Tensor out,
                    const AttentionInputs& in, const RowBatch& batch);

}  // namespace medusa::cpu
