#include "io/text_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/parallel.hpp"

namespace scw::io {
namespace {

using Body = TextSource::Body;

class File {
 public:
  File(const char* op, const std::string& path)
      : op_(op), path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat s {};
    if (fd_ < 0 || ::fstat(fd_, &s) != 0) {
      const int reason = errno;
      if (fd_ >= 0) ::close(fd_);
      detail::fail<IoError>(op_, "'{}' cannot be opened ({})", path_, std::strerror(reason));
    }
    size_ = s.st_size;
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::int64_t size() const { return size_; }
  void read(std::int64_t from, std::size_t n, char* out) const {
    for (std::size_t done = 0; done < n;) {
      const ssize_t got = ::pread(fd_, out + done, n - done, from + static_cast<std::int64_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) detail::fail<IoError>(op_, "'{}' cannot be read at byte {} ({})", path_, from, std::strerror(errno));
      if (got == 0)
        detail::fail<IoError>(op_, "'{}' ends at byte {} (expected {}: it has shrunk while it was read)", path_,
                              from + static_cast<std::int64_t>(done), size_);
      done += static_cast<std::size_t>(got);
    }
  }
  bool is_gzip() const {
    char start[2];
    if (size_ < 2) return false;
    read(0, 2, start);
    return start[0] == '\x1f' && start[1] == '\x8b';
  }

 private:
  const char* op_;
  const std::string& path_;
  int fd_;
  std::int64_t size_ = 0;
};

/// Blocks whose places are known: get(first byte, size, worker) gives one.
template <class Get>
void known_blocks(const Context& ctx, std::int64_t skip, std::int64_t size, std::size_t block_bytes, const Body& body,
                  Get&& get) {
  const auto step = static_cast<std::int64_t>(block_bytes);
  std::atomic<std::int64_t> last{INT64_MAX};  // blocks behind it are not wanted
  parallel_chunks(ctx, std::max<std::int64_t>(0, size - skip), step,
                  [&](std::int64_t b, std::int64_t begin, std::int64_t end, int worker) {
                    if (b > last.load(std::memory_order_relaxed)) return;
                    if (body(b, get(skip + begin, static_cast<std::size_t>(end - begin), worker))) return;
                    std::int64_t before = last.load(std::memory_order_relaxed);
                    while (b < before && !last.compare_exchange_weak(before, b, std::memory_order_relaxed)) {
                    }
                  });
}

/// Unpacks gzip on a thread of its own, into blocks that other threads take.
class Unpacker {
 public:
  struct Block {
    std::vector<char> bytes;
    std::size_t size = 0;
    std::int64_t number = 0;
  };

  Unpacker(const char* op, const std::string& path, std::int64_t skip, std::size_t block_bytes, int blocks)
      : file_(gzopen(path.c_str(), "rb"), &gzclose), skip_(skip), blocks_(static_cast<std::size_t>(blocks)) {
    if (!file_) detail::fail<IoError>(op, "'{}' cannot be opened ({})", path, std::strerror(errno));
    gzbuffer(file_.get(), 1 << 18);
    for (Block& b : blocks_) {
      b.bytes.resize(block_bytes);
      free_.push_back(&b);
    }
    thread_ = std::thread([this] { run(); });
  }
  ~Unpacker() {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  Unpacker(const Unpacker&) = delete;
  Unpacker& operator=(const Unpacker&) = delete;

  /// The next block, when there is one; null when no more come.
  Block* take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stop_ || done_ || !ready_.empty(); });
    if (stop_ || ready_.empty()) return nullptr;
    Block* b = ready_.front();
    ready_.pop_front();
    return b;
  }
  void give_back(Block* b) {
    {
      const std::lock_guard lock(mutex_);
      free_.push_back(b);
    }
    changed_.notify_all();
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
  }
  /// When nothing is wanted any more: why the text ended too early, if it has. Throws what stopped the thread.
  const std::optional<std::string>& end() {
    stop();
    thread_.join();
    if (error_) std::rethrow_exception(error_);
    return reason_;
  }

 private:
  /// Fills a block; false at the end of the text.
  bool fill(Block& b) {
    b.size = 0;
    while (b.size < b.bytes.size()) {
      const int got = gzread(file_.get(), b.bytes.data() + b.size, static_cast<unsigned>(b.bytes.size() - b.size));
      int status = Z_OK;
      const char* why = gzerror(file_.get(), &status);
      if (got < 0 || (status != Z_OK && status != Z_STREAM_END)) {
        reason_ = status == Z_BUF_ERROR ? "the gzip stream ends too early" : why;
        return false;
      }
      if (got == 0) return false;
      const std::int64_t dropped = std::min<std::int64_t>(skip_, got);
      skip_ -= dropped;
      if (dropped > 0)
        std::memmove(b.bytes.data() + b.size, b.bytes.data() + b.size + dropped,
                     static_cast<std::size_t>(got - dropped));
      b.size += static_cast<std::size_t>(got - dropped);
    }
    return true;
  }

  void run() {
    try {
      bool more = true;
      for (std::int64_t number = 0; more; ++number) {
        Block* b = nullptr;
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [&] { return stop_ || !free_.empty(); });
          if (stop_) return;
          b = free_.back();
          free_.pop_back();
        }
        more = fill(*b);
        b->number = number;
        {
          const std::lock_guard lock(mutex_);
          if (b->size > 0) ready_.push_back(b);
          done_ = !more;
        }
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      done_ = true;
      changed_.notify_all();
    }
  }

  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
  std::int64_t skip_;
  std::vector<Block> blocks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Block*> ready_;
  std::vector<Block*> free_;
  bool done_ = false, stop_ = false;
  std::optional<std::string> reason_;
  std::exception_ptr error_;
  std::thread thread_;
};

std::optional<std::string> unpacked_blocks(const Context& ctx, const char* op, const std::string& path,
                                           std::int64_t skip, std::size_t block_bytes, const Body& body) {
  const int workers = std::max(1, ctx.n_threads);
  Unpacker unpacker(op, path, skip, block_bytes, workers + 2);
  parallel_for(ctx, workers, 1, [&](std::int64_t, std::int64_t) {
    try {
      while (auto* b = unpacker.take()) {
        if (ctx.is_cancelled() || !body(b->number, {b->bytes.data(), b->size})) return unpacker.stop();
        unpacker.give_back(b);
      }
    } catch (...) {
      unpacker.stop();
      throw;
    }
  });
  ctx.check_cancelled(op);
  return unpacker.end();
}

}  // namespace

std::optional<std::string> TextSource::for_blocks(const Context& ctx, std::int64_t skip, std::size_t block_bytes,
                                                  const Body& body) const {
  if (in_memory_) {
    known_blocks(
        ctx, skip, static_cast<std::int64_t>(text_.size()), block_bytes, body,
        [&](std::int64_t first, std::size_t n, int) { return text_.substr(static_cast<std::size_t>(first), n); });
    return std::nullopt;
  }
  const File file(op_, name_);
  if (file.is_gzip()) return unpacked_blocks(ctx, op_, name_, skip, block_bytes, body);
  std::vector<std::vector<char>> buffers(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  known_blocks(ctx, skip, file.size(), block_bytes, body, [&](std::int64_t first, std::size_t n, int worker) {
    auto& buffer = buffers[static_cast<std::size_t>(worker)];
    buffer.resize(block_bytes);
    file.read(first, n, buffer.data());
    return std::string_view(buffer.data(), n);
  });
  return std::nullopt;
}

}  // namespace scw::io
