// Parity: one list of cases, run on every backend there is, with the CPU as the reference.
//
// Buffers stand between guard zones, and outputs are poisoned before each run: a kernel that writes outside its output,
// or leaves some of it unwritten, fails. Without a CUDA device the CUDA half skips visibly.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/transfer.hpp"
#include "math/philox.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::parity {

/// The CUDA context, or a visible skip of the calling test.
#define SCW_CUDA_CONTEXT(name)                                                                        \
  if (const std::string reason = ::scw::unavailable_reason(::scw::DeviceType::cuda); !reason.empty()) \
    GTEST_SKIP() << "no CUDA device: " << reason;                                                     \
  const ::scw::Context name = ::scw::Context::on({::scw::DeviceType::cuda, 0})

/// A copy of a host array on ctx.device (which may be the CPU) with `kGuard` bytes of pattern on both sides.
template <class T>
class Guarded {
 public:
  static constexpr std::size_t kGuard = 256;

  Guarded(const Context& ctx, const std::vector<T>& host)
      : ctx_(ctx),
        size_(static_cast<std::int64_t>(host.size())),
        bytes_(host.size() * sizeof(T)),
        buffer_(ctx.memory, static_cast<std::int64_t>(bytes_ + 2 * kGuard), "guarded", ctx.stream) {
    std::vector<unsigned char> image(bytes_ + 2 * kGuard, 0xA5);
    if (bytes_ > 0) std::memcpy(image.data() + kGuard, host.data(), bytes_);
    copy_bytes(ctx, buffer_.data(), ctx.device, image.data(), Device{}, image.size());
  }
  /// n elements of poison (NaN for floating point).
  static Guarded poisoned(const Context& ctx, std::int64_t n) {
    std::vector<T> host(static_cast<std::size_t>(n));
    if (n > 0) std::memset(static_cast<void*>(host.data()), 0xFF, host.size() * sizeof(T));
    return Guarded(ctx, host);
  }

  Span<T> view() { return {reinterpret_cast<T*>(buffer_.data() + kGuard), size_}; }
  Span<const T> cview() const { return {reinterpret_cast<const T*>(buffer_.data() + kGuard), size_}; }

  /// The contents; fails the test if a guard byte has changed.
  std::vector<T> host() const {
    std::vector<unsigned char> image(bytes_ + 2 * kGuard);
    copy_bytes(ctx_, image.data(), Device{}, buffer_.data(), ctx_.device, image.size());
    for (std::size_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(image[i], 0xA5) << "guard before the buffer, byte " << i;
      EXPECT_EQ(image[kGuard + bytes_ + i], 0xA5) << "guard after the buffer, byte " << i;
    }
    std::vector<T> out(static_cast<std::size_t>(size_));
    if (bytes_ > 0) std::memcpy(static_cast<void*>(out.data()), image.data() + kGuard, bytes_);
    return out;
  }

 private:
  const Context& ctx_;
  std::int64_t size_;
  std::size_t bytes_;
  Array<unsigned char> buffer_;
};

/// Host CSR made from a seed: counts (whole numbers) or fractions, with empty rows.
template <class V>
struct HostCsr {
  std::int64_t n_rows = 0;
  std::int32_t n_cols = 0;
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<V> values;

  static HostCsr random(std::int64_t rows, std::int32_t cols, double density, std::uint64_t seed, bool whole) {
    HostCsr x;
    x.n_rows = rows;
    x.n_cols = cols;
    const RngKey key{seed, 0};
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int32_t j = 0; i % 17 != 5 && j < cols; ++j) {
        const auto item = static_cast<std::uint64_t>(i * cols + j);
        if (math::random_uniform(key, item) >= density) continue;
        const double u = math::random_uniform(key, item, 1);
        x.indices.push_back(j);
        x.values.push_back(
            static_cast<V>(whole ? 1.0 + static_cast<double>(static_cast<int>(u * u * u * 60)) : u * 12));
      }
      x.indptr.push_back(static_cast<std::int64_t>(x.indices.size()));
    }
    return x;
  }

  std::vector<V> dense() const {
    std::vector<V> d(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols), V{0});
    for (std::int64_t i = 0; i < n_rows; ++i)
      for (auto k = indptr[static_cast<std::size_t>(i)]; k < indptr[static_cast<std::size_t>(i) + 1]; ++k)
        d[static_cast<std::size_t>(i * n_cols + indices[static_cast<std::size_t>(k)])] =
            values[static_cast<std::size_t>(k)];
    return d;
  }
};

/// A HostCsr on ctx.device, guarded, as sparse or dense.
template <class V>
struct DeviceMatrix {
  DeviceMatrix(const Context& ctx, const HostCsr<V>& x)
      : rows(x.n_rows),
        cols(x.n_cols),
        indptr(ctx, x.indptr),
        indices(ctx, x.indices),
        values(ctx, x.values),
        dense(ctx, x.dense()) {}
  std::int64_t rows;
  std::int32_t cols;
  Guarded<std::int64_t> indptr;
  Guarded<std::int32_t> indices;
  Guarded<V> values;
  Guarded<V> dense;

  AnyMutableMatrixView view(bool sparse) {
    if (sparse) return CsrView<V>(rows, cols, indptr.cview(), indices.cview(), values.view());
    return MatrixView<V>(dense.view().data, rows, cols);
  }
  std::vector<V> result(bool sparse) const { return sparse ? values.host() : dense.host(); }
};

/// What a matrix of sample() holds.
enum class Values { counts, large_counts, negative, fractions, wide, not_finite };

template <class V>
HostCsr<V> sample(std::int64_t rows, std::int32_t cols, Values kind, std::uint64_t seed) {
  auto x = HostCsr<V>::random(rows, cols, cols > 10000 ? 0.03 : 0.35, seed, kind < Values::fractions);
  for (std::size_t k = 0; k < x.values.size(); ++k) {
    const double u = math::random_uniform({seed, 7}, k);
    V& v = x.values[k];
    if (kind == Values::large_counts && u < 0.05) v = static_cast<V>(std::floor(u * 4e7));
    if (kind == Values::negative && u < 0.6) v = u < 0.5 ? -v : V{0};
    if (kind == Values::wide) v = static_cast<V>((u - 0.4) * std::pow(10.0, x.indices[k] % 13 - 6));
    if (kind == Values::not_finite && k % 97 == 3)
      v = k % 2 == 0 ? std::numeric_limits<V>::quiet_NaN() : (k % 3 == 0 ? -1 : 1) * std::numeric_limits<V>::infinity();
  }
  return x;
}

/// Equal bits, except that NaN equals NaN.
inline void expect_equal(const std::vector<double>& want, const std::vector<double>& got) {
  ASSERT_EQ(want.size(), got.size());
  for (std::size_t k = 0; k < want.size(); ++k) {
    if (std::isnan(want[k]) && std::isnan(got[k])) continue;
    ASSERT_EQ(std::bit_cast<std::uint64_t>(want[k]), std::bit_cast<std::uint64_t>(got[k]))
        << k << ": " << want[k] << " and " << got[k];
  }
}

/// Bit equality of two vectors, NaN included.
template <class T>
void expect_same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0) return;
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0)
        << "first difference at " << i << ": " << a[i] << " and " << b[i];
}

}  // namespace scw::parity
