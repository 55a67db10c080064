// Which rows of each sequence are kept, and its next root, out of what was drawn and judged at its
// rows: a warp a sequence. The rules are those of decode/accept.h and backend/typical_rule.h.
#include "backend/cuda/device/reduce.cuh"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/typical_rule.h"

namespace medusa::cuda {
namespace {

constexpr int kNone = 0x7fffffff;

struct Lowest {
  __device__ __forceinline__ static int join(int a, int b) { return a < b ? a : b; }
};

// The first child of `node` that holds `token`, or kNone.
__device__ int child_with_token(const AcceptArgs& a, const AcceptRange& s, int node,
                                int32_t token) {
  for (int base = node + 1; base < s.num_rows; base += kWarp) {
    const int row = base + lane(), at = s.first_row + row;
    const bool holds = row < s.num_rows && a.parents[at] == node && a.tokens[at] == token;
    const int child = reduce_warp<Lowest>(holds ? row : kNone);
    if (child != kNone) return child;
  }
  return kNone;
}

// The last node of the path along which every token is what was drawn at its parent.
__device__ int exact_path_end(const AcceptArgs& a, const AcceptRange& s) {
  int node = 0;
  for (;;) {
    const int child = child_with_token(a, s, node, a.drawn[s.first_drawn + node]);
    if (child == kNone) return node;
    node = child;
  }
}

__device__ int judged_path_end(const AcceptArgs& a, const AcceptRange& s) {
  const auto of_nodes = [&]<class T>(T* values) {
    return std::span<T>(values + s.first_row, static_cast<size_t>(s.num_rows));
  };
  int node = 0;
  if (lane() == 0) {
    const JudgedTree tree{of_nodes(a.parents), of_nodes(a.depths), of_nodes(a.log_probs),
                          of_nodes(a.entropies)};
    node = typical_path_end({a.log_threshold, a.log_alpha}, tree, of_nodes(a.scores));
  }
  return shuffle(node, 0);
}

__global__ void accept_kernel(AcceptArgs a) {
  const AcceptRange s = a.sequences[blockIdx.x];
  const bool chain = s.kind == AcceptKind::chain;
  for (int row = lane(); row < s.num_rows; row += kWarp) a.kept[s.first_row + row] = chain ? 1 : 0;
  sync_warp();
  int node = s.num_rows - 1;
  if (s.kind == AcceptKind::exact) node = exact_path_end(a, s);
  if (s.kind == AcceptKind::typical) node = judged_path_end(a, s);
  if (lane() != 0) return;
  a.last[blockIdx.x] = s.first_row + node;
  const int drawn = node - (s.num_rows - s.num_drawn);
  a.roots[blockIdx.x] = drawn < 0 ? 0 : a.drawn[s.first_drawn + drawn];
  if (chain) return;
  for (; node >= 0; node = a.parents[s.first_row + node]) a.kept[s.first_row + node] = 1;
}

}  // namespace

void accept(const Stream& stream, const AcceptArgs& a) {
  launch(stream, dim3(static_cast<unsigned>(a.count)), kWarp, 0, accept_kernel, a);
}

}  // namespace medusa::cuda
