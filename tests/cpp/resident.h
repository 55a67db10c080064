#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernel_case.h"

namespace medusa {

/// A host matrix's copy in a back end's memory, between guard bytes of its own.
class Resident {
 public:
  Resident(Backend& backend, const Matrix& host) : backend_(backend), view_(host.view()) {
    std::vector<uint8_t> bytes(kGuard + (view_.bytes() + 3) / 4 * 4 + kGuard, kPattern);
    std::memcpy(bytes.data() + kGuard, host.view().data, view_.bytes());
    storage_ = backend.allocate(bytes.size());
    backend.upload(everything(), bytes.data());
    view_.data = static_cast<uint8_t*>(storage_.data()) + kGuard;
  }
  operator Tensor() const { return view_; }  // NOLINT: it is its view
  const Tensor& view() const { return view_; }
  const float* floats() const { return static_cast<const float*>(view_.data); }

  /// What it holds now. A write outside of it fails the test.
  Matrix fetch() const {
    Matrix host(view_.dtype, view_.rows, view_.cols);
    const auto* bytes = static_cast<const uint8_t*>(backend_.download(everything()));
    std::memcpy(host.view().data, bytes + kGuard, view_.bytes());
    const auto* above = bytes + kGuard + view_.bytes();
    const auto is_pattern = [](uint8_t byte) { return byte == kPattern; };
    EXPECT_TRUE(std::all_of(bytes, bytes + kGuard, is_pattern)) << "written below a tensor";
    EXPECT_TRUE(std::all_of(above, above + kGuard, is_pattern)) << "written above a tensor";
    return host;
  }

 private:
  static constexpr size_t kGuard = 256;  // keeps the tensor aligned
  static constexpr uint8_t kPattern = 0xa5;

  Tensor everything() const {
    return {storage_.data(), DType::i32, 1, static_cast<int64_t>(storage_.bytes() / 4)};
  }

  Backend& backend_;
  Tensor view_;
  Buffer storage_;
};

}  // namespace medusa
