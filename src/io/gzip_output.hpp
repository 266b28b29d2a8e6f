// Text files, plain or gzip, written as it comes.
//
// Gzip is written in the BGZF format: members of at most 64 KiB, each with its own length in front, so that readers can
// unpack them on many threads. Format: SAM/BAM specification, section 4.1; any gzip reader takes it for one stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

struct libdeflate_compressor;

namespace scw::io {

/// One thread's compressor: text to whole members, whose bytes depend on the text and the level alone.
class GzipPacker {
 public:
  explicit GzipPacker(int level);
  ~GzipPacker();
  GzipPacker(const GzipPacker&) = delete;
  GzipPacker& operator=(const GzipPacker&) = delete;
  void pack(std::string_view text, std::string& out);

 private:
  libdeflate_compressor* deflate_;
};

/// One member that holds at most 60 KB as they are: its size depends on theirs alone.
std::string gzip_stored(std::string_view text);
/// The empty member that ends a BGZF file.
std::string_view gzip_end();

/// A new file. Throws IoError that names the file and the reason.
class NewFile {
 public:
  NewFile(const char* op, const std::filesystem::path& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  void append(std::string_view bytes);
  /// Over what is there.
  void put(std::int64_t at, std::string_view bytes) const;

 private:
  const char* op_;
  std::string path_;
  int fd_;
  std::int64_t size_ = 0;
};

}  // namespace scw::io
