#include "backend/cuda/runtime.h"

#include <cuda_runtime_api.h>

#include <atomic>

#include "base/check.h"

namespace medusa::cuda {
namespace {

const char* advice(cudaError_t error) {
  switch (error) {
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorNotSupported:
      return "the NVIDIA driver is older than this needs: update it, or do without "
             "MEDUSA_CUDA_LOOP";
    case cudaErrorInsufficientDriver:
      return "there is no NVIDIA driver here, or one older than this build's CUDA runtime: install "
             "or update it, or use device \"cpu\"";
    case cudaErrorNoDevice:
      return "no GPU is visible: look at CUDA_VISIBLE_DEVICES and nvidia-smi, or use device "
             "\"cpu\"";
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorInitializationError:
      return "the driver's parts do not fit one another: restart after updating it";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "this build has no code for this GPU: it needs compute capability 8.0 or later";
    case cudaErrorECCUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorLaunchFailure:
    case cudaErrorIllegalAddress:
    case cudaErrorHardwareStackError:
      return "the GPU is lost to this process: start a new one; if that fails too, look at "
             "nvidia-smi";
    default:
      return "see the CUDA runtime's documentation of this error";
  }
}

std::string explain(cudaError_t error) {
  return text(cudaGetErrorString(error), " (", cudaGetErrorName(error), "): ", advice(error));
}

void check_call(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that can be survived is not met again by the next call
  check<OutOfMemory>(error != cudaErrorMemoryAllocation, doing,
                     ": the GPU has no room left; lower kv_cache_memory or max_num_seqs, or choose "
                     "a smaller model");
  throw DeviceError(text(doing, ": ", explain(error)));
}

void free_device(void* data, size_t) noexcept { cudaFree(data); }
void free_pinned(void* data, size_t) noexcept { cudaFreeHost(data); }

// The clearing is asynchronous, and our streams do not wait for the default one.
Buffer cleared(void* data, size_t bytes) {
  Buffer buffer(data, bytes, free_device);
  check_call(cudaMemset(data, 0, bytes), "clearing memory of the GPU");
  check_call(cudaDeviceSynchronize(), "clearing memory of the GPU");
  return buffer;
}

cudaError_t count_devices(int& count) {
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    count = 0;
  }
  return error;
}

}  // namespace

int device_count() {
  int count = 0;
  count_devices(count);
  return count;
}

std::string why_no_device() {
  int count = 0;
  const cudaError_t error = count_devices(count);
  return explain(error == cudaSuccess ? cudaErrorNoDevice : error);
}

DeviceInfo describe(int device) {
  cudaDeviceProp properties{};
  check_call(cudaGetDeviceProperties(&properties, device), "describing the GPU");
  return {properties.name, properties.major, properties.minor};
}

void use_device(int device) { check_call(cudaSetDevice(device), "choosing the GPU"); }

size_t free_memory() {
  size_t free = 0, total = 0;
  check_call(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

Buffer device_memory(size_t bytes) {
  void* data = nullptr;
  check_call(cudaMalloc(&data, bytes), "allocating memory of the GPU");
  return cleared(data, bytes);
}

// Managed memory may exceed the GPU's, and would then move to and fro; so what does not fit is
// refused here.
Buffer managed_memory(size_t bytes) {
  const size_t free = free_memory();
  check<OutOfMemory>(bytes <= free, "the GPU has ", free, " bytes left, training needs ", bytes,
                     " more; train fewer heads, or smaller ones");
  void* data = nullptr;
  check_call(cudaMallocManaged(&data, bytes, cudaMemAttachGlobal),
             "allocating memory of the GPU that the host shares");
  return cleared(data, bytes);
}

Buffer pinned_memory(size_t bytes) {
  void* data = nullptr;
  check_call(cudaMallocHost(&data, bytes), "allocating pinned memory");
  return {data, bytes, free_pinned};
}

Stream::Stream() {
  check_call(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "creating a stream");
}
Stream::~Stream() {
  if (handle_ != nullptr && !borrowed_) cudaStreamDestroy(handle_);
}
void Stream::copy_to_device(void* to, const void* from, size_t bytes) const {
  check_call(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, handle_),
             "copying to the GPU");
}
void Stream::copy_to_host(void* to, const void* from, size_t bytes) const {
  check_call(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, handle_),
             "copying from the GPU");
}
void Stream::copy_on_device(void* to, const void* from, size_t bytes) const {
  check_call(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, handle_),
             "copying on the GPU");
}
void Stream::clear(void* to, size_t bytes) const {
  check_call(cudaMemsetAsync(to, 0, bytes, handle_), "clearing memory of the GPU");
}
void Stream::synchronize() const {
  check_call(cudaStreamSynchronize(handle_), "waiting for the GPU");
}

// Polls, with a look now and then whether the stream has failed or has nothing left to do.
bool Stream::wait_until(const uint32_t* word, uint32_t value) const {
  constexpr int kLooks = 1 << 12;
  const std::atomic_ref<uint32_t> seen(*const_cast<uint32_t*>(word));
  for (;;) {
    for (int i = 0; i < kLooks; ++i) {
      if (seen.load(std::memory_order_acquire) == value) return true;
    }
    const cudaError_t state = cudaStreamQuery(handle_);
    if (state == cudaErrorNotReady) continue;
    check_call(state, "waiting for the GPU");
    return seen.load(std::memory_order_acquire) == value;
  }
}

namespace {

struct OwnedGraph {
  cudaGraph_t graph = nullptr;
  OwnedGraph() = default;
  OwnedGraph(const OwnedGraph&) = delete;
  ~OwnedGraph() {
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
};

// After the capture has begun: `captured` is what `work` queues, or has queued when it throws.
void capture(const Stream& stream, FunctionRef<void()> work, cudaGraph_t& captured) {
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream.handle(), &captured);
    cudaGetLastError();
    throw;
  }
  check_call(cudaStreamEndCapture(stream.handle(), &captured), "ending a graph");
}

// CUDA 12 asks for no data of edges, CUDA 13 does.
template <class AddNode>
cudaError_t add_node(AddNode add, cudaGraph_t graph, cudaGraphNodeParams& node) {
  cudaGraphNode_t added = nullptr;
  if constexpr (requires { add(&added, graph, nullptr, 0, &node); }) {
    return add(&added, graph, nullptr, 0, &node);
  } else {
    return add(&added, graph, nullptr, nullptr, 0, &node);
  }
}

// A loop's body, owned by `graph`.
cudaGraph_t add_loop(cudaGraph_t graph, LoopHandle handle) {
  cudaGraphNodeParams node{};
  node.type = cudaGraphNodeTypeConditional;
  node.conditional.handle = handle;
  node.conditional.type = cudaGraphCondTypeWhile;
  node.conditional.size = 1;
  check_call(add_node(cudaGraphAddNode, graph, node), "making a loop of steps");
  return node.conditional.phGraph_out[0];
}

}  // namespace

Graph::Graph(const Stream& stream, FunctionRef<void()> work) {
  OwnedGraph whole;
  check_call(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal),
             "beginning a graph");
  capture(stream, work, whole.graph);
  cudaGraphGetNodes(whole.graph, nullptr, &num_nodes_);
  check_call(cudaGraphInstantiateWithFlags(&handle_, whole.graph, 0), "making a graph");
}

Graph Graph::loop(const Stream& stream, FunctionRef<void(LoopHandle)> body) {
  OwnedGraph whole;
  Graph result;
  cudaGraphConditionalHandle handle = 0;
  check_call(cudaGraphCreate(&whole.graph, 0), "beginning a graph");
  check_call(cudaGraphConditionalHandleCreate(&handle, whole.graph, 1, cudaGraphCondAssignDefault),
             "making a loop of steps");
  cudaGraph_t inside = add_loop(whole.graph, handle);
  check_call(cudaStreamBeginCaptureToGraph(stream.handle(), inside, nullptr, nullptr, 0,
                                           cudaStreamCaptureModeThreadLocal),
             "beginning a graph");
  capture(stream, [&] { body(handle); }, inside);
  cudaGraphGetNodes(inside, nullptr, &result.num_nodes_);
  check_call(cudaGraphInstantiateWithFlags(&result.handle_, whole.graph, 0), "making a graph");
  return result;
}

Graph::~Graph() {
  if (handle_ != nullptr) cudaGraphExecDestroy(handle_);
}
void Graph::launch(const Stream& stream) const {
  check_call(cudaGraphLaunch(handle_, stream.handle()), "launching a graph");
}

Event::Event() { check_call(cudaEventCreate(&handle_), "creating an event"); }
Event::~Event() {
  if (handle_ != nullptr) cudaEventDestroy(handle_);
}
void Event::record(const Stream& stream) const {
  check_call(cudaEventRecord(handle_, stream.handle()), "recording an event");
}
void Event::synchronize() const {
  check_call(cudaEventSynchronize(handle_), "waiting for an event");
}
double Event::milliseconds_since(const Event& earlier) const {
  float milliseconds = 0;
  check_call(cudaEventElapsedTime(&milliseconds, earlier.handle_, handle_), "reading an event");
  return milliseconds;
}

void allow_shared_memory(const void* kernel, size_t bytes) {
  check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)),
             "asking for shared memory");
}
void check_launch(int error) { check_call(static_cast<cudaError_t>(error), "launching a kernel"); }

}  // namespace medusa::cuda
