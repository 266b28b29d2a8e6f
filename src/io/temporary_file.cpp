#include "io/temporary_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/check.hpp"
#include "io/positioned.hpp"

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
  SCW_EXPECT_AS(IoError, write_fully(fd_, data, bytes, offset), op_,
                "{} bytes cannot be written at byte {} of a temporary file in '{}' ({}); TMPDIR chooses its folder",
                bytes, offset, folder_, std::strerror(errno));
}

void TemporaryFile::read(std::int64_t offset, void* out, std::int64_t bytes) const {
  const std::int64_t got = read_fully(fd_, out, bytes, offset);
  SCW_EXPECT_AS(IoError, got == bytes, op_, "{} bytes cannot be read at byte {} of a temporary file in '{}' ({})",
                bytes, offset, folder_, got < 0 ? std::strerror(errno) : "it ends before");
}

}  // namespace scw::io
