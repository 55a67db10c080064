#include "backend/cuda/tree_attention.h"

#include "base/check.h"

namespace medusa::cuda {
namespace {

constexpr int kMaxHeadDim = 256;

}  // namespace

void TreeAttention::run(Queue& queue, Element element, Tensor out, const AttentionInputs& in,
                        const RowBatch& batch) {
  const KvLayout& cache = *in.cache;
  check<DeviceError>(cache.head_dim <= kMaxHeadDim,
                     "tree_attention: expected a head_dim of at most ", kMaxHeadDim,
                     " on a GPU, found ", cache.head_dim);
  plan_.lay_out(batch, in.num_heads / cache.num_kv_heads, in.sliding_window);
  if (plan_.tiles().empty()) return;
  cuda::tree_attention(queue.stream, element, args(queue, out, in, batch));
}

void TreeAttention::add_inputs(const Queue& queue, AdvanceArgs& to) const {
  to.positions[1] = positions_.twin<int32_t>(queue);
  to.sequences = sequences_.twin<AttentionSequence>(queue);
  to.tiles = tiles_.twin<AttentionTile>(queue);
  to.pages = pages_.twin<int32_t>(queue);
  to.num_tiles = static_cast<int>(plan_.tiles().size());
  to.num_splits = plan_.num_splits();
  to.page_room =
      static_cast<int>(StepInputs::room(plan_.pages().size() * sizeof(int32_t)) / sizeof(int32_t));
  to.window = plan_.window();
}

AttentionArgs TreeAttention::args(Queue& queue, Tensor out, const AttentionInputs& in,
                                  const RowBatch& batch) {
  const KvLayout& cache = *in.cache;
  const size_t layer = cache.bytes_per_side() / static_cast<size_t>(cache.num_layers) *
                       static_cast<size_t>(in.layer);
  const auto mirror = [&]<class T>(Mirror& to, const std::vector<T>& values) {
    return to.of(queue, std::span<const T>(values));
  };
  AttentionArgs a{};
  a.q = in.q.row<float>(0);
  a.keys = in.keys.data;
  a.values = in.values.data;
  a.key_pages = static_cast<const char*>(cache.keys) + layer;
  a.value_pages = static_cast<const char*>(cache.values) + layer;
  a.out = out.data;
  a.sequences = mirror(sequences_, plan_.sequences());
  a.tiles = mirror(tiles_, plan_.tiles());
  a.positions = mirror(positions_, batch.positions);
  a.paths = mirror(paths_, plan_.paths());
  a.pages = mirror(pages_, plan_.pages());
  a.num_tiles = static_cast<int>(plan_.tiles().size());
  a.num_splits = plan_.num_splits();
  a.path_stride = plan_.path_stride();
  a.num_heads = in.num_heads;
  a.num_kv_heads = cache.num_kv_heads;
  a.head_dim = cache.head_dim;
  a.window = in.sliding_window;
  a.scale = in.scale;
  a.partials = queue.scratch.reserve<float>(queue.stream, attention_partials(a));
  a.tickets = queue.tickets.reserve<int>(queue.stream, attention_tickets(a));
  return a;
}

}  // namespace medusa::cuda
