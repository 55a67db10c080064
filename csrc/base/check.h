#pragma once

#include <sstream>
#include <string>

#include "medusa/error.h"

namespace medusa {

/// Text of all arguments, streamed one after another.
template <class... Args>
std::string text(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// Throws E with the given text unless `ok`.
template <class E = InvalidArgument, class... Args>
void check(bool ok, const Args&... args) {
  if (!ok) [[unlikely]]
    throw E(text(args...));
}

}  // namespace medusa
