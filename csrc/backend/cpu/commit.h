#pragma once

#include <span>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/thread_pool.h"

namespace medusa::cpu {

/// Backend::commit. `grain`: elements that make a thread worthwhile.
void commit_rows(const KernelTable& kernels, ThreadPool& pool, int64_t grain, const KvLayout& cache,
                 Tensor keys, Tensor values, std::span<const CommitRow> rows, Tensor kept);

}  // namespace medusa::cpu
