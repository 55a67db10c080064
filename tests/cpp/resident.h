#pragma once

#include <cstring>

#include "kernel_case.h"

namespace medusa {

/// A host matrix's copy in a back end's memory, which has guards of its own.
class Resident {
 public:
  Resident(Backend& backend, const Matrix& host)
      : backend_(backend), view_(host.view()), storage_(backend.allocate(view_.bytes())) {
    view_.data = storage_.data();
    backend.upload(view_, host.view().data);
  }
  operator Tensor() const { return view_; }  // NOLINT: it is its view
  const Tensor& view() const { return view_; }
  const float* floats() const { return static_cast<const float*>(view_.data); }

  /// What it holds now.
  Matrix fetch() const {
    Matrix host(view_.dtype, view_.rows, view_.cols);
    std::memcpy(host.view().data, backend_.download(view_), view_.bytes());
    return host;
  }

 private:
  Backend& backend_;
  Tensor view_;
  Buffer storage_;
};

}  // namespace medusa
