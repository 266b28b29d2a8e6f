// Shared by the backends.

#include <cstdint>

namespace scw::tl {

/// bit: which of the sets.
struct SetValue {
  const std::uint8_t* sets;
  unsigned bit = 1;
  template <class V>
  SCW_HD double operator()(V value, std::int32_t column) const {
    return (sets[column] & bit) != 0 ? static_cast<double>(value) : 0.0;
  }
};

struct SetNotNan {
  const std::uint8_t* in_set;
  template <class V>
  SCW_HD double operator()(V value, std::int32_t column) const {
    return in_set[column] != 0 && value == value ? static_cast<double>(value) : 0.0;
  }
};

struct SetNanCount {
  const std::uint8_t* in_set;
  template <class V>
  SCW_HD double operator()(V value, std::int32_t column) const {
    return in_set[column] != 0 && value != value ? 1.0 : 0.0;
  }
};

}  // namespace scw::tl
