// A text, plain or gzip, from a file or from memory: line by line, or in blocks on all threads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "io/lines.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

class TextSource {
 public:
  /// A file, gzip or not (told by content). It is opened when it is read.
  TextSource(const char* op, std::string path) : op_(op), name_(std::move(path)) {}
  /// A text that outlives this object; never unpacked.
  TextSource(const char* op, std::string_view text, std::string name)
      : op_(op), name_(std::move(name)), text_(text), in_memory_(true) {}

  const char* op() const { return op_; }
  const std::string& name() const { return name_; }
  Lines lines(const Context& ctx) const { return in_memory_ ? Lines(ctx, op_, text_, name_) : Lines(ctx, op_, name_); }

  /// body(number, block) for blocks of `block_bytes` of the unpacked text behind its first `skip` bytes, cut anywhere
  /// (the last is shorter), in any order on ctx.n_threads threads. A block may be used until body returns. After
  /// body(b) has returned false, blocks behind b may be left out; those before b are not.
  ///
  /// Plain files are read by the threads that use the blocks, and BGZF (gzip in members that say how long they are) is
  /// unpacked by them, cut between members; other gzip is unpacked by one more thread ahead of them. Returns why the
  /// text ends too early, if it does: then all before that has been used. Throws IoError, Cancelled, and what body
  /// throws. Memory: block_bytes for each thread, and for two more with gzip.
  using Body = std::function<bool(std::int64_t number, std::string_view block)>;
  std::optional<std::string> for_blocks(const Context& ctx, std::int64_t skip, std::size_t block_bytes,
                                        const Body& body) const;

 private:
  const char* op_;
  std::string name_;
  std::string_view text_;
  bool in_memory_ = false;
};

}  // namespace scw::io
