// Lines of a text, plain or gzip, from a file or from memory.
#pragma once

#include <zlib.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

class Lines {
 public:
  /// Opens a file, gzip or not (told by content). Throws IoError.
  Lines(const Context& ctx, const char* op, const std::string& path)
      : ctx_(ctx), op_(op), name_(path), file_(gzopen(path.c_str(), "rb"), &gzclose), buffer_(kStep) {
    if (!file_) detail::fail<IoError>(op_, "'{}' cannot be opened ({})", path, std::strerror(errno));
    gzbuffer(file_.get(), 1 << 17);
  }
  /// Lines of a text that outlives this object.
  Lines(const Context& ctx, const char* op, std::string_view text, const std::string& name)
      : ctx_(ctx), op_(op), name_(name), file_(nullptr, &gzclose), text_(text), done_(true) {}

  /// The next line without its end (LF or CRLF); valid until the next call. Nothing after the last line.
  std::optional<std::string_view> next() {
    for (;;) {
      const std::size_t end = text_.find('\n', scanned_);
      if (end != std::string_view::npos) return take(end, end + 1);
      scanned_ = text_.size();
      if (done_) {
        if (text_.empty()) return std::nullopt;
        return take(text_.size(), text_.size());
      }
      refill();
    }
  }

  /// Number of the line that next() gave last, from 1.
  std::int64_t line() const { return line_; }
  /// Bytes of (unpacked) text up to the end of that line.
  std::int64_t offset() const { return offset_; }

  template <class E = FormatError, class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw E(fmt::format("{}: '{}', line {}: {}", op_, name_, line_, fmt::format(text, std::forward<Args>(args)...)));
  }

 private:
  static constexpr std::size_t kStep = std::size_t{1} << 20;
  static constexpr std::size_t kLongest = std::size_t{1} << 30;

  std::string_view take(std::size_t end, std::size_t next) {
    std::string_view line = text_.substr(0, end);
    text_.remove_prefix(next);
    scanned_ = 0;
    offset_ += static_cast<std::int64_t>(next);
    ++line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  }

  /// Moves the unfinished line to the front of the buffer and reads on behind it.
  void refill() {
    ctx_.check_cancelled(op_);
    const std::size_t kept = text_.size();
    if (kept > 0) std::memmove(buffer_.data(), text_.data(), kept);
    if (kept + kStep > buffer_.size()) {
      if (buffer_.size() >= kLongest) fail("is longer than {} bytes", kLongest);
      buffer_.resize(buffer_.size() * 2);
    }
    const int got = gzread(file_.get(), buffer_.data() + kept, static_cast<unsigned>(kStep));
    int status = Z_OK;
    const char* why = gzerror(file_.get(), &status);
    if (got < 0 || (status != Z_OK && status != Z_STREAM_END))
      fail<IoError>("cannot be read on: {}", status == Z_BUF_ERROR ? "the gzip stream ends too early" : why);
    done_ = got == 0;
    text_ = {buffer_.data(), kept + static_cast<std::size_t>(got)};
  }

  const Context& ctx_;
  const char* op_;
  std::string name_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
  std::vector<char> buffer_;
  std::string_view text_;
  std::size_t scanned_ = 0;
  std::int64_t line_ = 0, offset_ = 0;
  bool done_ = false;
};

}  // namespace scw::io
