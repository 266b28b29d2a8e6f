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
#include "io/codecs.hpp"
#include "io/positioned.hpp"

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
    const auto bytes = static_cast<std::int64_t>(n);
    const std::int64_t got = read_fully(fd_, out, bytes, from);
    SCW_EXPECT_AS(IoError, got >= 0, op_, "'{}' cannot be read at byte {} ({})", path_, from, std::strerror(errno));
    SCW_EXPECT_AS(IoError, got == bytes, op_, "'{}' ends at byte {} (expected {}: it has shrunk while it was read)",
                  path_, from + got, size_);
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

/// The last block that is still wanted.
class LastBlock {
 public:
  bool wants(std::int64_t b) const { return b <= last_.load(std::memory_order_relaxed); }
  void stop_at(std::int64_t b) {
    std::int64_t before = last_.load(std::memory_order_relaxed);
    while (b < before && !last_.compare_exchange_weak(before, b, std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<std::int64_t> last_{INT64_MAX};
};

/// Blocks whose places are known: get(first byte, size, worker) gives one.
template <class Get>
void known_blocks(const Context& ctx, std::int64_t skip, std::int64_t size, std::size_t block_bytes, const Body& body,
                  Get&& get) {
  LastBlock last;
  parallel_chunks(ctx, std::max<std::int64_t>(0, size - skip), static_cast<std::int64_t>(block_bytes),
                  [&](std::int64_t b, std::int64_t begin, std::int64_t end, int worker) {
                    if (last.wants(b) && !body(b, get(skip + begin, static_cast<std::size_t>(end - begin), worker)))
                      last.stop_at(b);
                  });
}

// --------------------------------------------------------------------------------------------------------------- BGZF

/// A member of a BGZF file.
struct Member {
  std::int64_t offset, text_offset;
  std::size_t size, text_size;
};

/// The members of a file that consists of nothing but BGZF members (SAM/BAM specification, section 4.1); empty for
/// any other.
std::vector<Member> bgzf_members(const Context& ctx, const File& file) {
  constexpr std::size_t kHead = 18, kFoot = 8, kLargest = 1 << 16;
  constexpr unsigned char kStart[] = {0x1f, 0x8b, 8, 4}, kField[] = {6, 0, 'B', 'C', 2, 0};
  std::vector<Member> out;
  std::int64_t at = 0, text = 0;
  // The end of one member and the head of the next are read together.
  unsigned char bytes[4 + kHead];
  const auto head = bytes + 4;
  if (file.size() < static_cast<std::int64_t>(kHead + kFoot)) return {};
  file.read(0, kHead, reinterpret_cast<char*>(head));
  for (;;) {
    if (std::memcmp(head, kStart, sizeof kStart) != 0 || std::memcmp(head + 10, kField, sizeof kField) != 0) return {};
    const std::size_t size = (head[16] | std::size_t{head[17]} << 8) + 1;
    const std::int64_t next = at + static_cast<std::int64_t>(size), left = file.size() - next;
    if (size < kHead + kFoot || left < 0 || (left > 0 && left < static_cast<std::int64_t>(kHead + kFoot))) return {};
    file.read(next - 4, left == 0 ? 4 : sizeof bytes, reinterpret_cast<char*>(bytes));
    const std::size_t text_size =
        bytes[0] | std::size_t{bytes[1]} << 8 | std::size_t{bytes[2]} << 16 | std::size_t{bytes[3]} << 24;
    if (text_size > kLargest) return {};
    out.push_back({at, text, size, text_size});
    if (left == 0) return out;
    at = next;
    text += static_cast<std::int64_t>(text_size);
    if (out.size() % 4096 == 0) ctx.check_cancelled("scwarp");
  }
}

/// Unpacks members on the threads that use them.
std::optional<std::string> bgzf_blocks(const Context& ctx, const File& file, const std::vector<Member>& members,
                                       std::int64_t skip, std::size_t block_bytes, const Body& body) {
  // Where blocks begin, in members.
  std::vector<std::size_t> begins;
  std::size_t first = 0;
  while (first < members.size() &&
         members[first].text_offset + static_cast<std::int64_t>(members[first].text_size) <= skip)
    ++first;
  for (std::size_t i = first, bytes = block_bytes; i < members.size(); ++i) {
    if (bytes + members[i].text_size > block_bytes) {
      begins.push_back(i);
      bytes = 0;
    }
    bytes += members[i].text_size;
  }
  const auto n = static_cast<std::int64_t>(begins.size());
  begins.push_back(members.size());

  struct Worker {
    std::vector<char> packed, text;
    Codecs codecs;
  };
  std::vector<Worker> workers(static_cast<std::size_t>(std::max(1, ctx.n_threads)));
  LastBlock last;
  std::atomic<bool> damaged{false};
  parallel_chunks(ctx, n, 1, [&](std::int64_t b, std::int64_t, std::int64_t, int w) {
    if (!last.wants(b)) return;
    Worker& worker = workers[static_cast<std::size_t>(w)];
    const std::size_t begin = begins[static_cast<std::size_t>(b)], end = begins[static_cast<std::size_t>(b) + 1];
    const Member &one = members[begin], &other = members[end - 1];
    const auto packed = static_cast<std::size_t>(other.offset - one.offset) + other.size;
    const auto bytes = static_cast<std::size_t>(other.text_offset - one.text_offset) + other.text_size;
    worker.packed.resize(std::max(worker.packed.size(), packed));
    worker.text.resize(std::max(worker.text.size(), bytes));
    file.read(one.offset, packed, worker.packed.data());
    const auto* in = reinterpret_cast<const std::byte*>(worker.packed.data());
    auto* out = reinterpret_cast<std::byte*>(worker.text.data());
    bool ok = true;
    for (std::size_t i = begin; i < end && ok; ++i)
      ok = worker.codecs.gzip(in + (members[i].offset - one.offset), members[i].size,
                              out + (members[i].text_offset - one.text_offset), members[i].text_size);
    if (!ok) damaged = true;
    const auto dropped = static_cast<std::size_t>(std::max<std::int64_t>(0, skip - one.text_offset));
    if (!ok || !body(b, std::string_view(worker.text.data(), bytes).substr(dropped))) last.stop_at(b);
  });
  if (damaged) return "a member of the BGZF file is damaged";
  return std::nullopt;
}

// --------------------------------------------------------------------------------------------------------------- gzip

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
  if (file.is_gzip()) {
    if (const auto members = bgzf_members(ctx, file); !members.empty())
      return bgzf_blocks(ctx, file, members, skip, block_bytes, body);
    return unpacked_blocks(ctx, op_, name_, skip, block_bytes, body);
  }
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
