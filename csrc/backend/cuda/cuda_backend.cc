#include <cstring>

#include "backend/backend.h"
#include "backend/cpu/check_source.h"
#include "backend/cpu/source_rows.h"
#include "backend/cuda/choose_device.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/logits_products.h"
#include "backend/cuda/logits_reader.h"
#include "backend/cuda/pack.h"
#include "backend/cuda/queue.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/step_advance.h"
#include "backend/cuda/tree_acceptance.h"
#include "backend/cuda/tree_attention.h"
#include "base/check.h"

namespace medusa {
namespace cuda {
namespace {

constexpr double kCacheShare = 0.8;  // of the memory that weights left

static_assert(static_cast<int>(Finish::store) == static_cast<int>(Epilogue::store));
static_assert(static_cast<int>(Finish::add) == static_cast<int>(Epilogue::add));
static_assert(static_cast<int>(Finish::silu_mul) == static_cast<int>(Epilogue::silu_mul));
static_assert(static_cast<int>(Finish::residual_silu) == static_cast<int>(Epilogue::residual_silu));
static_assert(sizeof(CommitTarget) == sizeof(CommitRow));

// Queues kernels on one stream. Rows that rules, filters or log-probabilities need on the host go
// to `host_`, the CPU's back end.
class CudaBackend final : public Backend {
 public:
  CudaBackend(const LoadOptions& options, int device)
      : compute_(dtype_of(options.compute_type)),
        keeps_codes_(compute_ == DType::bf16 && options.weight_format == WeightFormat::as_stored),
        device_(device),
        host_(make_cpu_backend({.compute_type = ComputeType::float32, .num_threads = 1})),
        packers_(options.num_threads),
        queue_(options.stream, kernel_set_of(describe(device)), steps_wanted(graphs_wanted())),
        reader_(*host_) {
    queue_.stream.set_overlaps(overlap_wanted(describe(device)));
  }

  std::string name() const override {
    return text(device_name(device_), queue_.kernels == KernelSet::sm90 ? ", sm90 kernels" : "",
                queue_.stream.overlaps() ? ", overlapping" : "");
  }
  int num_threads() const override { return host_->num_threads(); }
  DType compute_dtype() const override { return compute_; }

  Buffer allocate(size_t bytes) override {
    use_device(device_);
    return device_memory(bytes);
  }
  size_t default_cache_bytes() const override {
    use_device(device_);
    return static_cast<size_t>(kCacheShare * static_cast<double>(free_memory()));
  }
  void upload(Tensor out, const void* from) override {
    bound().upload(out.data, from, out.bytes());
  }
  const void* download(Tensor x) override { return bound().land(x.data, x.bytes()); }

  Weight prepare_weight(const WeightSource& source) override {
    cpu::check_source(source);
    if (source.packed != nullptr) return pack_again(source);
    const DType codes = keeps_codes_ ? common_codes(source) : DType::f32;
    if (codes != DType::f32) return on_device(source, codes, pack_codes(source, codes, packers_));
    return on_device(source, compute_, pack_rows(source, compute_, packers_));
  }

  // Alone it may go on with what runs ahead.
  void replay(FunctionRef<void()> body) override {
    use_device(device_);
    queue_.replay(body);
  }
  int steps_ahead() const override { return queue_.steps_ahead(); }
  void go_on(const NextStep& next, const RowBatch& batch) override {
    check(static_cast<int64_t>(commits_.size()) == batch.num_rows(),
          "go_on: expected a commit() of all rows, found ", commits_.size(), " of ",
          batch.num_rows());
    AdvanceArgs args{};
    args.tokens[0] = indices_.twin<int32_t>(queue_);
    args.positions[0] = positions_.twin<int32_t>(queue_);
    args.targets = targets_.twin<CommitTarget>(queue_);
    attention_.add_inputs(queue_, args);
    acceptance_.add_inputs(queue_, args);
    advance_.offer(bound(), next, batch, args);
  }
  void rest() override { bound(); }
  void stamp(Tensor out) override { cuda::stamp(stream(), out.row<int64_t>(0)); }

  void embed(Tensor out, const Weight& table, std::span<const int32_t> ids) override {
    if (out.rows == 0) return;
    const int32_t* at = indices_.of(bound(), ids);
    cuda::embed(stream(), format_of(table.segments[0].dtype),
                {pieces_of(table), at, static_cast<int>(out.rows), static_cast<int>(out.cols)},
                out.row<float>(0));
  }

  void append_embedding(Tensor out, Tensor x, const Weight& table, Tensor ids) override {
    if (out.rows == 0) return;
    cuda::append_embedding(stream(), format_of(table.segments[0].dtype),
                           {pieces_of(table), ids.row<int32_t>(0), static_cast<int>(out.rows),
                            static_cast<int>(table.in_features)},
                           x.data, static_cast<int>(x.cols), out.data);
  }

  void rms_norm(Tensor out, Tensor x, const float* weight, float eps) override {
    if (x.rows == 0) return;
    cuda::rms_norm(stream(), element_of(out.dtype),
                   {x.row<float>(0), weight, out.data, static_cast<int>(x.rows),
                    static_cast<int>(x.cols), eps});
  }

  void linear(Tensor out, Tensor x, const Weight& weight, Epilogue epilogue) override {
    if (x.rows == 0) return;
    LinearArgs a = linear_args(bound(), x, weight, static_cast<Finish>(epilogue));
    a.out = out.data;
    cuda::linear(stream(), format_of(weight.segments[0].dtype), a);
  }

  void rope(const QkvSplit& split, Tensor qkv, std::span<const int32_t> positions,
            const Rope& rope) override {
    if (qkv.rows == 0) return;
    const int32_t* at = positions_.of(bound(), positions);
    cuda::rope(
        stream(), element_of(compute_),
        {qkv.row<float>(0), split.q.row<float>(0), split.keys.data, split.values.data, split.q_norm,
         split.k_norm, split.norm_eps, rope.cos, rope.sin, at, static_cast<int>(qkv.rows),
         split.num_heads, split.num_kv_heads, split.head_dim, rope.interleaved});
  }

  void tree_attention(Tensor out, const AttentionInputs& in, const RowBatch& batch) override {
    attention_.run(bound(), element_of(compute_), out, in, batch);
  }

  void gather_rows(Tensor out, Tensor x, Tensor rows) override {
    if (rows.cols == 0) return;
    cuda::gather_rows(stream(), out.data, x.data, rows.row<int32_t>(0), static_cast<int>(rows.cols),
                      x.row_bytes());
  }

  void linear_top_k(Tensor values, Tensor ids, Tensor x, std::span<const Weight> weights) override {
    projections_.top_k(bound(), values, ids, x, weights);
  }

  void sample(std::span<int32_t> ids, Tensor logits, std::span<const SampleRow> rows) override {
    reader_.sample(bound(), ids, logits, rows);
  }

  void logprobs(Tensor logits, std::span<const LogprobRow> rows) override {
    reader_.logprobs(bound(), logits, rows);
  }

  void posterior(Tensor logits, std::span<const PosteriorRow> rows) override {
    reader_.posterior(bound(), logits, rows);
  }

  bool accept(const Decisions& out, const LogitsProduct& product, const RowBatch& batch,
              std::span<const AcceptSequence> sequences, const TypicalRule& rule) override {
    return acceptance_.accept(bound(), out, product, batch, sequences, rule);
  }

  void commit(const KvLayout& cache, Tensor keys, Tensor values, std::span<const CommitRow> rows,
              Tensor kept) override {
    if (rows.empty()) return;
    commits_.resize(rows.size());
    std::memcpy(commits_.data(), rows.data(), rows.size_bytes());
    cuda::commit(stream(),
                 {keys.data, values.data, cache.keys, cache.values,
                  targets_.of(bound(), std::span<const CommitTarget>(commits_)),
                  kept.row<int32_t>(0), static_cast<int>(rows.size()),
                  static_cast<int>(keys.rows / cache.num_layers), cache.num_layers, cache.num_pages,
                  cache.num_kv_heads, cache.head_dim * static_cast<int>(block_bytes(cache.dtype))});
  }

 private:
  // Makes the device the calling thread's. What runs ahead has ended, but for verbs of a replay.
  Queue& bound() {
    use_device(device_);
    if (!queue_.replays()) queue_.rest();
    return queue_;
  }
  const Stream& stream() { return bound().stream; }

  // A source, packed as `dtype`.
  Weight on_device(const WeightSource& source, DType dtype, const std::vector<uint8_t>& packed) {
    Weight weight;
    weight.out_features = cpu::count_rows(source);
    weight.in_features = source.parts[0]->shape[1];
    weight.segments = {{dtype, 0, weight.out_features, 0}};
    weight.storage = on_device(packed.data(), packed.size());
    const std::vector<float> bias = cpu::widen_bias(source);
    if (!bias.empty()) weight.bias = on_device(bias.data(), bias.size() * sizeof(float));
    return weight;
  }

  // Rows of a weight of this back end, by way of the host.
  Weight pack_again(const WeightSource& source) {
    const auto count = static_cast<int64_t>(source.rows.size());
    Tensor rows{nullptr, DType::f32, count, source.packed->in_features};
    const Buffer wide = allocate(rows.bytes());
    rows.data = wide.data();
    embed(rows, *source.packed, source.rows);
    const HostTensor part{download(rows), rows.bytes(), DType::f32, {rows.rows, rows.cols}};
    return prepare_weight({.parts = {&part}, .name = source.name});
  }

  Buffer on_device(const void* data, size_t bytes) {
    Buffer buffer = allocate(bytes);
    stream().copy_to_device(buffer.data(), data, bytes);
    stream().synchronize();
    return buffer;
  }

  const DType compute_;
  const bool keeps_codes_;
  const int device_;
  const std::shared_ptr<Backend> host_;
  ThreadPool packers_;  // of weights
  Queue queue_;
  Mirror indices_, positions_, targets_;
  TreeAttention attention_;
  std::vector<CommitTarget> commits_;
  LogitsReader reader_;
  TreeAcceptance acceptance_;
  StepAdvance advance_;
  LogitsProducts projections_;
};

}  // namespace
}  // namespace cuda

std::shared_ptr<Backend> make_cuda_backend(const LoadOptions& options, int device) {
  cuda::choose_device(device);
  return std::make_shared<cuda::CudaBackend>(options, device);
}

}  // namespace medusa
