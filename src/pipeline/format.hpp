// Numbers as text for people, and as Python writes them in names.
#pragma once

#include <cstdint>
#include <string>

#include "scwarp/core/config.hpp"

namespace scw::pipeline {

/// 1 234 567
SCW_API std::string format_count(std::int64_t n);
/// Up to four significant digits, whole numbers in full.
SCW_API std::string format_number(double v);
/// repr(float): 1.0, 0.4, 1e-05
SCW_API std::string python_float(double v);

}  // namespace scw::pipeline
