#include "io/gzip_output.hpp"

#include <fcntl.h>
#include <libdeflate.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/check.hpp"
#include "io/positioned.hpp"

namespace scw::io {
namespace {

constexpr std::size_t kMember = 0xff00;  // packed it has at most 64 KiB, even if that makes it larger
constexpr std::size_t kHead = 18, kFoot = 8;

void put_number(char* out, std::uint32_t v, int bytes) {
  for (int i = 0; i < bytes; ++i) out[i] = static_cast<char>(v >> (8 * i) & 0xff);
}

/// Around `packed` bytes of deflate that lie behind the place of the head.
void frame(char* member, std::size_t packed, std::string_view text) {
  constexpr unsigned char kStart[] = {0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, 'B', 'C', 2, 0};
  std::memcpy(member, kStart, sizeof kStart);
  put_number(member + sizeof kStart, static_cast<std::uint32_t>(kHead + packed + kFoot - 1), 2);
  put_number(member + kHead + packed, libdeflate_crc32(0, text.data(), text.size()), 4);
  put_number(member + kHead + packed + 4, static_cast<std::uint32_t>(text.size()), 4);
}

}  // namespace

GzipPacker::GzipPacker(int level) : deflate_(libdeflate_alloc_compressor(level)) { SCW_ASSERT(deflate_ != nullptr); }
GzipPacker::~GzipPacker() { libdeflate_free_compressor(deflate_); }

void GzipPacker::pack(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const auto piece = text.substr(0, kMember);
    text.remove_prefix(piece.size());
    const std::size_t before = out.size(), room = libdeflate_deflate_compress_bound(deflate_, piece.size());
    out.resize(before + kHead + room + kFoot);
    const std::size_t packed =
        libdeflate_deflate_compress(deflate_, piece.data(), piece.size(), out.data() + before + kHead, room);
    SCW_ASSERT(packed > 0 && kHead + packed + kFoot <= 0x10000);
    frame(out.data() + before, packed, piece);
    out.resize(before + kHead + packed + kFoot);
  }
}

std::string gzip_stored(std::string_view text) {
  SCW_ASSERT(text.size() < 60000);
  constexpr std::size_t kStored = 5;
  std::string out(kHead + kStored + text.size() + kFoot, '\0');
  char* block = out.data() + kHead;
  block[0] = 1;
  put_number(block + 1, static_cast<std::uint32_t>(text.size()), 2);
  put_number(block + 3, ~static_cast<std::uint32_t>(text.size()), 2);
  std::memcpy(block + kStored, text.data(), text.size());
  frame(out.data(), kStored + text.size(), text);
  return out;
}

std::string_view gzip_end() {
  static constexpr char kEnd[] = "\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0\x42\x43\x02\0\x1b\0\x03\0\0\0\0\0\0\0\0\0";
  return {kEnd, sizeof kEnd - 1};
}

NewFile::NewFile(const char* op, const std::filesystem::path& path)
    : op_(op), path_(path.string()), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
  SCW_EXPECT_AS(IoError, fd_ >= 0, op_, "'{}' cannot be made ({})", path_, std::strerror(errno));
}
NewFile::~NewFile() { ::close(fd_); }

void NewFile::append(std::string_view bytes) {
  put(size_, bytes);
  size_ += static_cast<std::int64_t>(bytes.size());
}

void NewFile::put(std::int64_t at, std::string_view bytes) const {
  const bool ok = write_fully(fd_, bytes.data(), static_cast<std::int64_t>(bytes.size()), at);
  SCW_EXPECT_AS(IoError, ok, op_, "'{}' cannot be written ({})", path_, std::strerror(errno));
}

}  // namespace scw::io
