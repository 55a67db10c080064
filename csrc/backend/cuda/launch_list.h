#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "backend/cuda/advance.h"
#include "tensor/buffer.h"

namespace medusa::cuda {

/// What a stream is to do, written down: kernels with their arguments, and copies. It can be run,
/// and compared with what was written down before. Equal lists do the same, for they name the same
/// memory.
class LaunchList {
 public:
  void clear();
  bool empty() const { return items_.empty() && uploads_.empty(); }
  size_t size() const { return items_.size() + uploads_.size(); }

  /// `Work` is called with the stream and can be compared.
  template <class Work>
  void add(const Work& work) {
    static_assert(std::is_trivially_destructible_v<Work> && sizeof(Work) <= kChunk);
    void* place = reserve(sizeof(Work));
    items_.push_back(
        {requires { Work::kKernel; }, requires { Work::kToHost; },
         std::construct_at(static_cast<Work*>(place), work),
         [](const void* at, const Stream& stream) { (*static_cast<const Work*>(at))(stream); },
         [](const void* a, const void* b) {
           return *static_cast<const Work*>(a) == *static_cast<const Work*>(b);
         }});
  }
  /// Whether what was added last is a kernel.
  bool ends_in_kernel() const { return !items_.empty() && items_.back().kernel; }
  /// A copy to the device that comes before everything else.
  void add_upload(void* to, const void* from, size_t bytes) {
    uploads_.push_back({to, from, bytes});
  }
  /// How the list's next run follows from this one.
  void go_on(const AdvanceArgs& advance) { advance_ = advance; }
  const std::optional<AdvanceArgs>& advance() const { return advance_; }
  /// Memory that the list still uses and nobody else needs.
  void keep(Buffer buffer) { kept_.push_back(std::move(buffer)); }
  /// Whether an equal list can come again.
  bool repeatable() const { return kept_.empty(); }

  void run(const Stream& stream) const;
  /// The copies to the device.
  void upload(const Stream& stream) const;
  /// All but copies to the device, and from it to the host.
  void compute(const Stream& stream) const;
  bool operator==(const LaunchList& other) const;
  /// Whether both do the same with what was copied to the device.
  bool same_work(const LaunchList& other) const;

 private:
  static constexpr size_t kChunk = size_t{1} << 15;

  struct Item {
    bool kernel, to_host;
    const void* work;
    void (*run)(const void*, const Stream&);
    bool (*same)(const void*, const void*);
  };
  struct Upload {
    void* to;
    const void* from;
    size_t bytes;
    bool operator==(const Upload&) const = default;
  };
  void* reserve(size_t bytes);

  std::vector<Item> items_;
  std::vector<Upload> uploads_;
  std::optional<AdvanceArgs> advance_;
  std::vector<Buffer> kept_;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;  // items lie here and never move
  size_t chunk_ = 0, used_ = 0;                       // of the chunk in use
};

}  // namespace medusa::cuda
