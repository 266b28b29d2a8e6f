// Which operations do their work with another operation's kernels: said beside their own kernels, kept in the registry.
//
//   scale.cpp    SCW_BUILT_ON("pp.scale", "pp.gene_moments");
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "scwarp/core/config.hpp"

namespace scw {

namespace detail {
SCW_API int register_part(const char* operation, const char* part);
}

/// The operation, and everything that it is built on.
SCW_API std::vector<std::string> parts_of(std::string_view operation);

}  // namespace scw

#define SCW_BUILT_ON_NAME_(line) scw_built_on_##line
#define SCW_BUILT_ON_NAME(line) SCW_BUILT_ON_NAME_(line)
#define SCW_BUILT_ON(operation, part) \
  [[maybe_unused]] static const int SCW_BUILT_ON_NAME(__LINE__) = ::scw::detail::register_part(operation, part)
