// Shared by cpu.cpp and cuda.cu.

#include <atomic>
#include <cstdint>

namespace scw::pp {

struct KeptValue {
  const std::uint8_t* excluded;  // null: keep all
  template <class V>
  SCW_HD double operator()(V value, std::int32_t column) const {
    return excluded != nullptr && excluded[column] != 0 ? 0.0 : static_cast<double>(value);
  }
};

/// KeptValue without exclusion, for rows that come without column indices.
struct EveryValue {
  template <class V>
  SCW_HD double operator()(V value, std::int32_t) const {
    return static_cast<double>(value);
  }
};

/// Every writer of a flag writes the same byte.
struct FlagDominant {
  const double* totals;
  double max_fraction;
  std::uint8_t* flags;
  template <class V>
  SCW_HD void operator()(V value, std::int64_t row, std::int32_t column) const {
    if (!(static_cast<double>(value) > max_fraction * totals[row])) return;
#ifdef __CUDA_ARCH__
    flags[column] = 1;
#else
    std::atomic_ref(flags[column]).store(1, std::memory_order_relaxed);
#endif
  }
};

/// Multiplies by target / c where c > 0.
struct ScaleBy {
  bool scales;
  double factor;
  template <class V>
  SCW_HD V operator()(V value, std::int32_t) const {
    return scales ? static_cast<V>(static_cast<double>(value) * factor) : value;
  }
};

struct ScaleToTarget {
  double target;
  SCW_HD ScaleBy given(double c) const { return {c > 0, c > 0 ? target / c : 0.0}; }
};

struct ScaleRow {
  const double* counts;
  double target;
  template <class V>
  SCW_HD V operator()(V value, std::int64_t row, std::int32_t column) const {
    return for_row(row)(value, column);
  }
  SCW_HD ScaleBy for_row(std::int64_t row) const { return ScaleToTarget{target}.given(counts[row]); }
};

}  // namespace scw::pp
