#include "io/temporary_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/check.hpp"

namespace scw::io {

TemporaryFile::TemporaryFile(const char* op) : op_(op) {
  const char* chosen = std::getenv("TMPDIR");
  folder_ = chosen != nullptr && *chosen != '\0' ? chosen : "/tmp";
#ifdef O_TMPFILE
  fd_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
#endif
  if (fd_ < 0) {  // old kernels and some file systems
    std::string name = folder_ + "/scwarp-XXXXXX";
    fd_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd_ >= 0) ::unlink(name.c_str());
  }
  SCW_EXPECT_AS(IoError, fd_ >= 0, op_, "no temporary file can be made in '{}' ({}); TMPDIR chooses its folder",
                folder_, std::strerror(errno));
}

TemporaryFile::~TemporaryFile() { ::close(fd_); }

void TemporaryFile::write(std::int64_t offset, const void* data, std::int64_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(fd_, p, static_cast<std::size_t>(bytes), offset);
    if (done < 0 && errno == EINTR) continue;
    SCW_EXPECT_AS(IoError, done > 0, op_,
                  "{} bytes cannot be written at byte {} of a temporary file in '{}' ({}); TMPDIR chooses its folder",
                  bytes, offset, folder_, std::strerror(done == 0 ? ENOSPC : errno));
    p += done;
    offset += done;
    bytes -= done;
  }
}

void TemporaryFile::read(std::int64_t offset, void* out, std::int64_t bytes) const {
  auto* p = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t done = ::pread(fd_, p, static_cast<std::size_t>(bytes), offset);
    if (done < 0 && errno == EINTR) continue;
    SCW_EXPECT_AS(IoError, done > 0, op_, "{} bytes cannot be read at byte {} of a temporary file in '{}' ({})", bytes,
                  offset, folder_, done == 0 ? "it ends there" : std::strerror(errno));
    p += done;
    offset += done;
    bytes -= done;
  }
}

}  // namespace scw::io
