// The pass of group_moments that adds. Compiled by value type: cuda_float.cu and cuda_double.cu.
#pragma once

#include "prim/gene_tiles.cuh"
#include "prim/group_moments/group_moments.hpp"
#include "prim/row_ops.cuh"

namespace scw::prim::cuda {

/// Where the sums go and how values become integers; all on the device.
struct GroupSums {
  std::uint64_t* sums = nullptr;         // [n_groups x genes] FixedMoments
  std::int32_t* nonzero = nullptr;       // [n_groups x genes]
  std::uint32_t* flags = nullptr;        // [n_groups x genes] bytes, in whole words; null: all values are finite
  const std::int16_t* shifts = nullptr;  // [genes]
  std::int64_t genes = 0;
  double expm1_scale = 1.0;
  bool shared_scale = false;  // every shift is kSharedShift

  __device__ void flag(std::int64_t at, std::uint8_t bits) const {
    if (flags != nullptr) atomicOr(flags + at / 4, static_cast<std::uint32_t>(bits) << (8 * (at % 4)));
  }
};

/// X: CsrView or MatrixView of const float or double.
template <class X>
void add_group_moments(const Context& ctx, const X& x, const RowOrder& order, const GroupSums& to, bool expm1,
                       bool squares);

#define SCW_GROUP_MOMENTS(prefix, V)                                                                                 \
  prefix template void add_group_moments(const Context&, const CsrView<const V>&, const RowOrder&, const GroupSums&, \
                                         bool, bool);                                                                \
  prefix template void add_group_moments(const Context&, const MatrixView<const V>&, const RowOrder&,                \
                                         const GroupSums&, bool, bool)
SCW_GROUP_MOMENTS(extern, float);
SCW_GROUP_MOMENTS(extern, double);

}  // namespace scw::prim::cuda
