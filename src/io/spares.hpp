// What workers of parallel loops need for themselves, kept from one loop to the next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace scw::io {

/// Objects that nobody uses at the moment. Several loops may borrow at once.
template <class T>
class Spares {
 public:
  /// One object per worker of a loop, made when there is no spare one, and given back at the end.
  class Loan {
   public:
    Loan(Spares& spares, int n_threads) : spares_(spares), all_(static_cast<std::size_t>(std::max(1, n_threads))) {}
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ~Loan() {
      const std::lock_guard lock(spares_.mutex_);
      for (auto& one : all_)
        if (one) spares_.idle_.push_back(std::move(one));
    }
    T& operator[](int worker) {
      auto& one = all_[static_cast<std::size_t>(worker)];
      if (!one) one = spares_.take();
      return *one;
    }

   private:
    Spares& spares_;
    std::vector<std::unique_ptr<T>> all_;
  };

  void clear() {
    const std::lock_guard lock(mutex_);
    idle_.clear();
  }

 private:
  std::unique_ptr<T> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        auto one = std::move(idle_.back());
        idle_.pop_back();
        return one;
      }
    }
    return std::make_unique<T>();
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace scw::io
