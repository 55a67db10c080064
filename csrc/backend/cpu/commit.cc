#include "backend/cpu/commit.h"

#include <algorithm>

#include "backend/cpu/segments.h"

namespace medusa::cpu {
namespace {

void commit_row(const KernelTable& kernels, const KvLayout& cache, Tensor keys, Tensor values,
                const CommitRow& row, int layer) {
  const int64_t from = keys.rows / cache.num_layers * layer + row.row;
  kernels.commit[cache_type(cache.dtype)](
      {keys.row<char>(from), values.row<char>(from), cache.key_tile(layer, row.page, 0),
       cache.value_tile(layer, row.page, 0), row.position % kPageSize, cache.num_kv_heads,
       cache.head_dim});
}

}  // namespace

void commit_rows(const KernelTable& kernels, ThreadPool& pool, int64_t grain, const KvLayout& cache,
                 Tensor keys, Tensor values, std::span<const CommitRow> rows, Tensor kept) {
  const auto* flags = kept.row<int32_t>(0);
  const auto is_kept = [&](const CommitRow& row) {
    return flags == nullptr || flags[row.row] != 0;
  };
  const int64_t work = std::count_if(rows.begin(), rows.end(), is_kept) * keys.cols;
  pool.parallel_for(cache.num_layers, std::max<int64_t>(1, grain / std::max<int64_t>(1, work)),
                    [&](int64_t first, int64_t last, int) {
                      for (auto layer = static_cast<int>(first); layer < last; ++layer) {
                        for (const CommitRow& row : rows) {
                          if (is_kept(row)) commit_row(kernels, cache, keys, values, row, layer);
                        }
                      }
                    });
}

}  // namespace medusa::cpu
