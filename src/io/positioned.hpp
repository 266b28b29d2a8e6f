// Reading and writing at a place of an open file, to the end and through interruptions.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace scw::io {

/// Bytes read, fewer than n where the file ends before; -1 where reading fails (errno says why).
inline std::int64_t read_fully(int fd, void* out, std::int64_t n, std::int64_t offset) {
  std::int64_t done = 0;
  while (done < n) {
    const ssize_t got = ::pread(fd, static_cast<char*>(out) + done, static_cast<std::size_t>(n - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += got;
  }
  return done;
}

/// Whether all n bytes were written; where not, errno says why.
inline bool write_fully(int fd, const void* data, std::int64_t n, std::int64_t offset) {
  for (std::int64_t done = 0; done < n;) {
    const ssize_t put =
        ::pwrite(fd, static_cast<const char*>(data) + done, static_cast<std::size_t>(n - done), offset + done);
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = ENOSPC;
    if (put <= 0) return false;
    done += put;
  }
  return true;
}

}  // namespace scw::io
