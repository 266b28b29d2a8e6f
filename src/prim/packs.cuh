// Values that are read and written together, 16 bytes at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include "scwarp/core/views.hpp"

namespace scw::prim::cuda {

template <class V, int kWide>
struct alignas(kWide * sizeof(V)) Pack {
  V v[kWide];
};

template <class V>
inline constexpr int kPackWidth = sizeof(uint4) / sizeof(V);

/// Past the caches where it can be: what is read once, and results.
template <int kWide, class V>
__device__ inline Pack<V, kWide> load_pack(const V* from) {
  Pack<V, kWide> pack;
  if constexpr (kWide == 1) {
    pack.v[0] = __ldcs(from);
  } else {
    static_assert(kWide == kPackWidth<V>);
    const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(from));
    memcpy(&pack, &raw, sizeof(pack));
  }
  return pack;
}
template <int kWide, class V>
__device__ inline void store_pack(V* to, const Pack<V, kWide>& pack) {
  if constexpr (kWide == 1) {
    __stcs(to, pack.v[0]);
  } else {
    static_assert(kWide == kPackWidth<V>);
    uint4 raw;
    memcpy(&raw, &pack, sizeof(pack));
    __stcs(reinterpret_cast<uint4*>(to), raw);
  }
}

/// Whether every row consists of whole, aligned packs of 16 bytes.
template <class V>
bool in_packs(const MatrixView<V>& x) {
  return x.n_cols % kPackWidth<V> == 0 && x.ld % kPackWidth<V> == 0 &&
         reinterpret_cast<std::uintptr_t>(x.data) % sizeof(uint4) == 0;
}

}  // namespace scw::prim::cuda
