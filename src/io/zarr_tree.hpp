// The files of a Zarr store by their keys ("obs/leiden/.zarray"), on disk or in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/buffer.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::io::zarr {

/// Whether `name` can be the name of a member: not empty, not "." or "..", without slash, backslash and NUL.
bool is_plain_name(std::string_view name);

class SCW_API Tree {
 public:
  virtual ~Tree() = default;
  struct Entry {
    std::string name;
    bool is_folder = false;
    bool is_link = false;  ///< leads somewhere else; never followed
  };
  /// What is in a folder, in byte order; empty if there is no such folder.
  virtual std::vector<Entry> list(const std::string& folder) const = 0;
  /// Bytes of a file; nothing if there is none.
  virtual std::optional<std::int64_t> size(const std::string& key) const = 0;
  /// Bytes [offset, offset + n) of a file; false if they are not all there.
  virtual bool read(const std::string& key, std::int64_t offset, std::int64_t n, std::byte* out) const = 0;
  /// The whole file; false if there is none. Throws IoError when it cannot be read.
  virtual bool read(const std::string& key, std::vector<std::byte>& out) const = 0;
  /// The same for a file of at most `most` bytes, else throws FormatError before there is memory for it.
  virtual bool read(const std::string& key, Buffer& out, std::int64_t most) const = 0;
  /// Bytes [offset, offset + n) of a file, or as many of them as there are, will soon be read: a device may fetch them
  /// meanwhile. n = -1: up to its end.
  virtual void will_read(const std::string& key, std::int64_t offset, std::int64_t n) const = 0;
  /// Whether the file was last written before the tree was opened.
  virtual bool is_old(const std::string& key) const = 0;
  /// Whether this is still what was opened.
  virtual bool is_unchanged() const = 0;
  /// Another one when files were added to or removed from a folder. 0: there is no such folder.
  virtual std::uint64_t stamp(const std::string& folder) const = 0;
};

/// Throws IoError. Nothing outside the folder is ever opened.
SCW_API std::unique_ptr<Tree> open_folder(const char* op, const std::string& path);
SCW_API std::unique_ptr<Tree> open_files(ZarrFiles files);

}  // namespace scw::io::zarr
