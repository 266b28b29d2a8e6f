// A thread that reads blocks ahead of those who use them.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>

#include "scwarp/core/context.hpp"

namespace scw::io {

/// Two buffers take turns: while block b is used, b + 1 is read. Blocks are taken and given back in order.
template <class Buffer>
class ReadAhead {
 public:
  /// read(ctx, b, buffer) is called on another thread, for b = 0, 1, ... The context it gets is cancelled when this
  /// object goes.
  template <class Read>
  ReadAhead(const Context& ctx, std::size_t blocks, Read read) : ctx_(ctx) {
    ctx_.cancelled = &stop_;
    thread_ = std::thread([this, blocks, read = std::move(read)] { run(blocks, read); });
  }
  ~ReadAhead() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  /// Block b, when it has been read; throws what its reading threw.
  Buffer& take(std::size_t b) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return read_ > b || error_; });
    if (read_ <= b) std::rethrow_exception(error_);
    return buffers_[b % buffers_.size()];
  }
  /// Its buffer may be used again.
  void give_back(std::size_t b) {
    {
      const std::lock_guard lock(mutex_);
      used_ = b + 1;
    }
    changed_.notify_all();
  }

 private:
  template <class Read>
  void run(std::size_t blocks, const Read& read) {
    try {
      for (std::size_t b = 0; b < blocks; ++b) {
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [&] { return stop_ || b < used_ + buffers_.size(); });
        }
        if (stop_) return;
        read(ctx_, b, buffers_[b % buffers_.size()]);
        {
          const std::lock_guard lock(mutex_);
          read_ = b + 1;
        }
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      changed_.notify_all();
    }
  }

  Context ctx_;
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t read_ = 0, used_ = 0;
  std::exception_ptr error_;
  std::array<Buffer, 2> buffers_;
  std::thread thread_;
};

}  // namespace scw::io
