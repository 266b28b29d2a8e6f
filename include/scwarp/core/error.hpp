// The exceptions that scwarp throws. Texts read "op: what is wrong (got ..., expected ...)".
#pragma once

#include <stdexcept>
#include <string>

#include "scwarp/core/config.hpp"

namespace scw {

class SCW_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An option is out of range, or a combination of options makes no sense.
class SCW_API InvalidArgument : public Error {
  using Error::Error;
};
/// Extents disagree; both shapes are in the text.
class SCW_API ShapeMismatch : public Error {
  using Error::Error;
};
/// A value type that the operation does not take; the text says what it takes and how to convert.
class SCW_API DTypeMismatch : public Error {
  using Error::Error;
};
/// Data on another device than the context's.
class SCW_API DeviceMismatch : public Error {
  using Error::Error;
};
/// The data themselves: NaN, negative counts, unsorted or duplicate indices; names the first bad position.
class SCW_API DataError : public Error {
  using Error::Error;
};
/// No implementation of this operation for this device or type.
class SCW_API NotSupported : public Error {
  using Error::Error;
};
/// The device cannot be used; the text says why.
class SCW_API BackendUnavailable : public Error {
  using Error::Error;
};
/// Requested, limit, free, biggest holders, and the option that would fit.
class SCW_API OutOfMemory : public Error {
  using Error::Error;
};
/// The operating system refused: path and reason.
class SCW_API IoError : public Error {
  using Error::Error;
};
/// The file is not what it should be: path, object inside the file, expected and found.
class SCW_API FormatError : public Error {
  using Error::Error;
};
/// A CUDA call failed: status, call, place.
class SCW_API CudaError : public Error {
  using Error::Error;
};
/// The user asked to stop.
class SCW_API Cancelled : public Error {
  using Error::Error;
};
/// A bug in scwarp.
class SCW_API InternalError : public Error {
  using Error::Error;
};

}  // namespace scw
