#include "scwarp/pp/gene_moments.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <thread>

#include "parity/parity.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::expect_equal;
using parity::Guarded;
using parity::HostCsr;
using parity::sample;
using parity::Values;

struct Result {
  std::vector<double> mean, variance;
  std::vector<std::int64_t> n_rows;
  bool counts = false;
};

template <class V>
Result run(const Context& ctx, const HostCsr<V>& host, bool sparse, GeneMomentsOptions options,
           const std::vector<std::int32_t>& codes, std::int64_t block) {
  DeviceMatrix<V> x(ctx, host);
  const Guarded<std::int32_t> groups(ctx, codes);
  if (!codes.empty()) options.groups = groups.cview();
  GeneMoments m = gene_moments(ctx, ResidentBlocks(scw::as_const(x.view(sparse)), block), options);
  Result r;
  const auto mean = to_host<double>(ctx, std::as_const(m.mean.data).view());
  const auto variance = to_host<double>(ctx, std::as_const(m.variance.data).view());
  r.mean.assign(mean.begin(), mean.end());
  r.variance.assign(variance.begin(), variance.end());
  r.n_rows.assign(m.n_rows.begin(), m.n_rows.end());
  r.counts = m.counts;
  return r;
}

template <class V>
void check(const Context& cuda, const HostCsr<V>& host, const GeneMomentsOptions& options,
           const std::vector<std::int32_t>& codes, std::int64_t block = 0) {
  for (const bool sparse : {true, false}) {
    const Result want = run(Context::cpu(2), host, sparse, options, codes, block);
    const Result got = run(cuda, host, sparse, options, codes, block);
    expect_equal(want.mean, got.mean);
    expect_equal(want.variance, got.variance);
    EXPECT_EQ(want.n_rows, got.n_rows);
    EXPECT_EQ(want.counts, got.counts);
  }
}

template <class V>
void check_values(const Context& cuda) {
  const std::int64_t rows = 700;
  std::vector<std::int32_t> codes;
  for (std::int32_t i = 0; i < rows; ++i) codes.push_back(i % 7 == 0 ? -1 : i % 11 == 0 ? 9 : (i / 50) % 3);
  for (const Values kind :
       {Values::counts, Values::large_counts, Values::negative, Values::fractions, Values::wide, Values::not_finite}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto host = sample<V>(rows, 90, kind, 11);
    check(cuda, host, {}, {});
    check(cuda, host, {.ddof = 0}, {}, 150);
    for (const double scale : {1.0, std::log(2.0)}) check(cuda, host, {.expm1 = true, .expm1_scale = scale}, {});
    check(cuda, host, {.n_groups = 4, .with_total = true}, codes);
    check(cuda, host, {.expm1 = true, .n_groups = 5}, codes, 64);
  }
}

TEST(GeneMomentsParity, CudaHasTheBitsOfTheCpu) {
  SCW_CUDA_CONTEXT(cuda);
  check_values<float>(cuda);
  check_values<double>(cuda);
}

TEST(GeneMomentsParity, ManyGenesInSeveralTiles) {
  SCW_CUDA_CONTEXT(cuda);
  for (const Values kind : {Values::counts, Values::negative, Values::wide}) {
    SCOPED_TRACE(static_cast<int>(kind));
    check(cuda, sample<float>(90, 70000, kind, 5), {}, {});
    std::vector<std::int32_t> codes;
    for (std::int32_t i = 0; i < 90; ++i) codes.push_back(i % 3 - 1);
    check(cuda, sample<float>(90, 70000, kind, 6), {.n_groups = 2}, codes);
  }
}

TEST(GeneMomentsParity, ManyRowsFlushSeveralTimes) {
  SCW_CUDA_CONTEXT(cuda);
  // One gene with a large value in every row: 32-bit words of a slab would overflow if they were not flushed.
  for (const double value : {255.0, 3.7}) {
    HostCsr<float> x;
    x.n_rows = 1500000;
    x.n_cols = 3;
    for (std::int64_t i = 0; i < x.n_rows; ++i) {
      x.indices.push_back(1);
      x.values.push_back(static_cast<float>(value));
      x.indptr.push_back(i + 1);
    }
    check(cuda, x, {}, {});
  }
}

TEST(GeneMomentsParity, TwoThreadsWithTilesOfTwoSizes) {
  SCW_CUDA_CONTEXT(cuda);
  // The shared memory that a kernel may take is a setting of the process: neither thread may lower it for the other.
  const auto work = [&cuda](std::int32_t genes) -> std::string {
    try {
      const auto host = sample<float>(90, genes, Values::counts, 5);
      const Result want = run(Context::cpu(1), host, true, {}, {}, 0);
      for (int k = 0; k < 300; ++k)
        if (const Result got = run(cuda, host, true, {}, {}, 0); got.mean != want.mean || got.variance != want.variance)
          return "other bits";
      return {};
    } catch (const std::exception& e) {
      return e.what();
    }
  };
  std::string of_other;
  std::thread other([&] { of_other = work(9000); });
  EXPECT_EQ(work(2500), "");
  other.join();
  EXPECT_EQ(of_other, "");
}

/// Enough for every kernel, little enough for the sanitizers.
TEST(GeneMomentsParity, Small) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<std::int32_t> codes;
  for (std::int32_t i = 0; i < 60; ++i) codes.push_back(i % 4 - 1);
  for (const Values kind : {Values::counts, Values::wide, Values::not_finite}) {
    check(cuda, sample<float>(60, 50, kind, 13), {.expm1 = kind == Values::wide}, {}, 33);
    check(cuda, sample<float>(60, 50, kind, 13), {.n_groups = 3, .with_total = true}, codes);
  }
  check(cuda, sample<double>(60, 50, Values::large_counts, 13), {}, {});
  check(cuda, sample<float>(60, 52, Values::wide, 13), {}, {});  // dense rows of whole packs
}

TEST(GeneMomentsParity, FewRows) {
  SCW_CUDA_CONTEXT(cuda);
  for (const std::int64_t rows : {0, 1, 2, 6}) {  // row 5 is empty
    SCOPED_TRACE(rows);
    check(cuda, sample<float>(rows, 40, Values::counts, 3), {}, {});
    check(cuda, sample<double>(rows, 1, Values::fractions, 3), {}, {});
  }
  check(cuda, sample<float>(5, 8, Values::counts, 3), {.n_groups = 3}, {-1, -1, 7, -5, 3});  // nobody in any group
}

TEST(GeneMomentsParity, ManyGroups) {
  SCW_CUDA_CONTEXT(cuda);
  std::vector<std::int32_t> codes;
  for (std::int32_t i = 0; i < 3000; ++i) codes.push_back((i * 7919) % 2500);
  check(cuda, sample<float>(3000, 30, Values::counts, 4), {.n_groups = 2500}, codes);
  check(cuda, sample<float>(3000, 30, Values::fractions, 4), {.n_groups = 2500}, codes);
}

}  // namespace
}  // namespace scw::pp
