// Elements from a store into another one of any format, by what they hold.
#pragma once

#include <string>

#include "io/store.hpp"

namespace scw::io {

/// What in an element (or below) cannot be written to another format; empty: nothing, all of it can.
std::string cannot_transcode(const Context& ctx, const Node& node);
/// Writes the element and everything below; cannot_transcode was asked. Attributes that the other format has no form
/// for are left out with a warning.
void transcode(const Context& ctx, GroupWriter& to, const std::string& name, const Node& node);

}  // namespace scw::io
