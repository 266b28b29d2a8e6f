// Where convert and concat write to.
#pragma once

#include <string>

namespace scw::io {

/// Before anything is read: InvalidArgument for a name without a known ending, and for what is there already.
void expect_output(const char* op, const std::string& out, bool overwrite);

}  // namespace scw::io
