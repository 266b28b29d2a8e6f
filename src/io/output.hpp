// Where convert and concat write to.
#pragma once

#include <string>

#include "scwarp/anndata.hpp"

namespace scw::io {

/// Before anything is read: InvalidArgument for a name without a known ending, and for what is there already.
void expect_output(const char* op, const std::string& out, bool overwrite);
/// After reading: IoError if elements may be missing because the input was being removed or replaced.
void expect_unchanged(const char* op, const AnnData& data);

}  // namespace scw::io
