#pragma once

#include <stdexcept>
#include <string>

namespace medusa {

/// Base of everything the library throws on purpose.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// An argument of a call is out of range or contradicts another.
struct InvalidArgument : Error {
  using Error::Error;
};
/// A file, or a tensor of it, is not what it should be.
struct ModelFormatError : Error {
  using Error::Error;
};
/// A memory limit is too small for what was asked.
struct OutOfMemory : Error {
  using Error::Error;
};
/// A device or an instruction set is missing or failed.
struct DeviceError : Error {
  using Error::Error;
};

}  // namespace medusa
