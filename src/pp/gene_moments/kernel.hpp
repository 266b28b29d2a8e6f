#pragma once

#include <vector>

#include "prim/fixed_point.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/pp/gene_moments.hpp"

namespace scw::pp {

/// The scale that is tried first: 2^31.
inline constexpr int kGeneMomentsShift = 31;

struct GeneSums {
  Array<prim::FixedMoments> sums;       // [n_groups x n_cols], on the host
  std::vector<prim::FixedScale> scale;  // [n_cols]
  std::vector<std::uint8_t> finite;     // [n_cols]
  std::vector<std::int64_t> n_rows;     // [n_groups]
  bool counts = true;                   // all values are non-negative integers
};

/// Exact sums by group and column. Any order of additions gives the same integers.
extern SCW_API Kernel<void(const Context&, const RowBlocks&, const GeneMomentsOptions&, GeneSums&)> gene_sums_kernel;

/// The driver's first half, for operations that need the integers themselves.
GeneSums gene_sums(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options, const char* op);

/// gene_moments with the result on the host, where drivers want it.
GeneMoments host_gene_moments(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options,
                              const char* op);

}  // namespace scw::pp
