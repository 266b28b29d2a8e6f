// The readers that are fuzzed, behind one call.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "scwarp/core/views.hpp"

namespace scw::fuzz {

using Bytes = std::vector<std::byte>;

/// Where the bytes of a file have a structure that damage should aim at.
enum class Shape : int { text, hdf5, store };

struct Format {
  const char* name;
  /// Reads the bytes and looks at all of the result. Throws scw::Error for what it refuses; anything else is a finding.
  void (*read)(Span<const std::byte>);
  Shape shape;
};

std::span<const Format> formats();
/// Throws std::out_of_range for a name that is none of them.
const Format& format(std::string_view name);

enum class Outcome : int { read, refused };
/// Exceptions that are not a scw::Error pass through.
Outcome attempt(const Format& format, const Bytes& file);

/// Small files to start from, made here: what the readers must be able to read. Deterministic.
std::vector<Bytes> examples(const Format& format);

Bytes to_bytes(std::string_view text);

}  // namespace scw::fuzz
