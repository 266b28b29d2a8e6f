#include "prim/group_moments/group_moments.hpp"

#include <limits>

#include "parity/parity.hpp"

namespace scw::prim {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

struct Case {
  std::int64_t rows;
  std::int32_t cols;
  bool whole, sparse, non_finite, all_rows;
  std::optional<double> expm1;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  // 14 000 genes need three tiles of shared memory; 9 000 rows of one group more than one flush.
  for (const auto& [rows, cols] :
       {std::pair<std::int64_t, std::int32_t>{0, 3}, {1, 1}, {300, 77}, {40, 14000}, {21000, 9}})
    for (const bool whole : {true, false})
      for (const bool sparse : {true, false})
        for (const bool non_finite : {false, true})
          for (const bool all_rows : {false, true})
            for (const auto& expm1 : {std::optional<double>{}, std::optional<double>{0.5}}) {
              if (non_finite && expm1) continue;  // refused by the operations: expm1(-inf) is finite
              all.push_back({rows, cols, whole, sparse, non_finite, all_rows, expm1});
            }
  return all;
}

struct Result {
  std::vector<std::uint64_t> sums;
  std::vector<std::int64_t> rest;
};

template <class V>
Result run(const Context& ctx, const Case& c, bool squares) {
  auto matrix = HostCsr<V>::random(c.rows, c.cols, 0.2, 31, c.whole);
  for (std::size_t k = 0; k < matrix.values.size(); ++k) {
    if (k % 13 == 3) matrix.values[k] = -matrix.values[k];
    if (k % 29 == 5) matrix.values[k] = V{0};
    if (!c.whole && k % 31 == 7) matrix.values[k] *= V{1e-6f};
    if (c.non_finite && k % 97 == 11) matrix.values[k] = std::numeric_limits<V>::quiet_NaN();
    if (c.non_finite && k % 101 == 12) matrix.values[k] = -std::numeric_limits<V>::infinity();
  }
  DeviceMatrix<V> x(ctx, matrix);
  // Codes below, in and above the groups [2, 5).
  std::vector<std::int32_t> codes(c.all_rows ? 0 : static_cast<std::size_t>(c.rows));
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = i % 11 == 0 ? -1 : static_cast<std::int32_t>(i * i % 7);
  const auto view = scw::as_const(x.view(c.sparse));
  const ValueMap map{c.expm1};
  const GeneScales scales = gene_scales(ctx, ResidentBlocks(view), map);
  const GroupMoments m =
      group_moments(ctx, ResidentBlocks(view), codes, c.all_rows ? 0 : 2, c.all_rows ? 1 : 3, map, scales, squares);
  Result out;
  for (const FixedMoments& f : m.moments)
    for (const Int128 v : {f.sum, squares ? f.sum_sq : Int128{0}}) {
      out.sums.push_back(static_cast<std::uint64_t>(v));
      out.sums.push_back(static_cast<std::uint64_t>(static_cast<Uint128>(v) >> 64));
    }
  for (const std::int32_t n : m.nonzero) out.rest.push_back(n);
  for (const std::uint8_t f : m.flags) out.rest.push_back(f);
  for (const FixedScale& s : m.scale) out.rest.push_back(s.shift);
  for (const std::uint8_t f : scales.non_finite) out.rest.push_back(f);
  return out;
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  for (const Case& c : cases())
    for (const bool squares : {true, false}) {
      const auto want = run<V>(Context::cpu(2), c, squares);
      for (int repeat = 0; repeat < 2; ++repeat) {
        const auto got = run<V>(cuda, c, squares);
        parity::expect_same_bits(want.sums, got.sums);
        parity::expect_same_bits(want.rest, got.rest);
      }
    }
}

TEST(GroupMomentsParity, CudaHasTheIntegersOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(GroupMomentsParity, CpuDenseAndSparseAgree) {
  for (const Case& c : cases()) {
    if (!c.sparse) continue;
    Case dense = c;
    dense.sparse = false;
    const auto a = run<double>(Context::cpu(2), c, true), b = run<double>(Context::cpu(2), dense, true);
    parity::expect_same_bits(a.sums, b.sums);
    parity::expect_same_bits(a.rest, b.rest);
  }
}

}  // namespace
}  // namespace scw::prim
