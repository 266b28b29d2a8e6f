// What a Zarr array's metadata says, versions 2 and 3, checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/store.hpp"

namespace scw::io::zarr {

using Json = nlohmann::json;

/// What is wrong, thrown by the functions of this header; the caller knows store and object.
struct SCW_API Damage {
  std::string what;
};

/// JSON of limited depth.
SCW_API Json parse_json(const std::vector<std::byte>& text);

enum class TextForm : std::uint8_t { none, vlen_utf8, utf32, bytes };

struct SCW_API Type {
  ElementType element;  ///< size: bytes of one element; 0 for texts of variable length
  TextForm text = TextForm::none;
  bool swapped = false;  ///< stored in the other byte order
  struct Field;
  std::vector<Field> fields;  ///< of records
};
struct Type::Field {
  std::string name;
  Type type;
  std::size_t offset = 0;
};

enum class CodecId : std::uint8_t { zlib, gzip, zstd, lz4, blosc, crc32c, shuffle };

/// One step from bytes to bytes.
struct Codec {
  CodecId id = CodecId::zstd;
  std::size_t element = 1;  ///< of shuffle
};

/// How a chunk becomes bytes: array to bytes, then the codecs in this order.
struct Pipeline {
  bool swapped = false;
  std::vector<std::size_t> order;  ///< dimensions as they are stored, outermost first; empty: as they are
  std::vector<Codec> codecs;
};

struct SCW_API ArrayMeta {
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> chunk;  ///< elements that are compressed together
  Type type;
  std::vector<std::byte> fill;  ///< one element, in this machine's order
  std::string fill_text;
  Pipeline pipeline;
  std::string unsupported;  ///< codec that scwarp does not know: data cannot be read; empty: they can

  bool sharded = false;
  std::vector<std::int64_t> shard;  ///< elements in one file; `chunk` if not sharded
  Pipeline index;
  bool index_at_end = true;

  bool v3_keys = false;  ///< "c/0/1", not "0.1"
  char separator = '.';

  /// Key of a shard below the array's folder.
  std::string key(const std::vector<std::int64_t>& at) const;
  std::int64_t chunk_elements() const;
  /// Bytes of a chunk of elements of fixed size.
  std::int64_t chunk_bytes() const {
    return checked_mul(chunk_elements(), static_cast<std::int64_t>(type.element.size));
  }
};

SCW_API ArrayMeta parse_v2(const Json& array);
SCW_API ArrayMeta parse_v3(const Json& array);

/// numpy's name and back to both formats' own: for writing. Empty for an unknown name.
Json v2_dtype(std::string_view numpy_name);

std::string to_base64(const std::vector<std::byte>& bytes);

}  // namespace scw::io::zarr
