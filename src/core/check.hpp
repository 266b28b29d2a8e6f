// Preconditions and assertions. SCW_EXPECT is for callers' errors, SCW_ASSERT for ours; both throw, nothing aborts.
#pragma once

#ifndef __CUDACC__  // nvcc does not compile fmt: checks belong in the .cpp of an operation, before dispatch
#include <fmt/format.h>
#endif

#include "scwarp/core/array.hpp"
#include "scwarp/core/error.hpp"

#ifndef __CUDACC__
namespace scw::detail {

template <class E, class... Args>
[[noreturn]] void fail(const char* op, fmt::format_string<Args...> text, Args&&... args) {
  throw E(fmt::format("{}: {}", op, fmt::format(text, std::forward<Args>(args)...)));
}

}  // namespace scw::detail
#endif

/// InvalidArgument unless `condition`: SCW_EXPECT(k > 0, "pp.neighbors", "n_neighbors must be positive (got {})", k)
#define SCW_EXPECT(condition, op, ...)                                              \
  do {                                                                              \
    if (!(condition)) ::scw::detail::fail<::scw::InvalidArgument>(op, __VA_ARGS__); \
  } while (false)

/// The same with another exception: SCW_EXPECT_AS(ShapeMismatch, a == b, "op", "...", a, b)
#define SCW_EXPECT_AS(exception, condition, op, ...)                          \
  do {                                                                        \
    if (!(condition)) ::scw::detail::fail<::scw::exception>(op, __VA_ARGS__); \
  } while (false)

#define SCW_ASSERT(condition)                                                                             \
  do {                                                                                                    \
    if (!(condition))                                                                                     \
      throw ::scw::InternalError(std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " #condition); \
  } while (false)
