#include "scwarp/pp/subset.hpp"

#include "parity/parity.hpp"

namespace scw::pp {
namespace {

using parity::DeviceMatrix;
using parity::HostCsr;

enum class Mask { all, none, some, first, alternate };

std::vector<std::uint8_t> mask(Mask kind, std::int64_t n) {
  std::vector<std::uint8_t> m(static_cast<std::size_t>(n), 1);
  for (std::size_t i = 0; i < m.size(); ++i) {
    if (kind == Mask::none) m[i] = 0;
    if (kind == Mask::some) m[i] = i % 7 < 2;
    if (kind == Mask::first) m[i] = i == 0;
    if (kind == Mask::alternate) m[i] = i % 2;
  }
  return m;
}

template <class T>
std::vector<T> host(const Context& ctx, const Array<T>& a) {
  std::vector<T> out(static_cast<std::size_t>(a.size()));
  copy_bytes(ctx, out.data(), Device{}, a.data(), ctx.device, out.size() * sizeof(T));
  return out;
}

/// Everything of the result as bytes of one kind: (rows, columns, offsets, indices) and values.
template <class V>
struct Result {
  std::vector<std::int64_t> structure;
  std::vector<V> values;
};

template <class V>
Result<V> run(const Context& ctx, const HostCsr<V>& matrix, bool sparse, Mask cells, Mask genes) {
  DeviceMatrix<V> x(ctx, matrix);
  const auto keep_cells = mask(cells, matrix.n_rows);
  const auto keep_genes = mask(genes, matrix.n_cols);
  const auto r = subset(ctx, scw::as_const(x.view(sparse)), keep_cells, keep_genes);
  Result<V> out;
  if (sparse) {
    const auto& m = std::get<Csr<V>>(r);
    out.structure = {m.n_rows, m.n_cols};
    for (const std::int64_t p : host(ctx, m.indptr)) out.structure.push_back(p);
    for (const std::int32_t j : host(ctx, m.indices)) out.structure.push_back(j);
    out.values = host(ctx, m.values);
  } else {
    const auto& m = std::get<Matrix<V>>(r);
    out.structure = {m.n_rows, m.n_cols};
    out.values = host(ctx, m.data);
  }
  return out;
}

template <class V>
void check_same_on_cuda(const Context& cuda) {
  constexpr Mask kinds[] = {Mask::all, Mask::none, Mask::some, Mask::first, Mask::alternate};
  for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int32_t>{0, 3}, {1, 1}, {300, 77}, {65, 1000}})
    for (const double density : {0.2, 0.9}) {
      const auto matrix = HostCsr<V>::random(rows, cols, density, 3, false);
      for (const bool sparse : {true, false})
        for (const Mask cells : kinds)
          for (const Mask genes : kinds) {
            const auto want = run<V>(Context::cpu(2), matrix, sparse, cells, genes);
            const auto got = run<V>(cuda, matrix, sparse, cells, genes);
            parity::expect_same_bits(want.structure, got.structure);
            parity::expect_same_bits(want.values, got.values);
          }
    }
}

TEST(SubsetParity, CudaKeepsWhatTheCpuKeeps) {
  SCW_CUDA_CONTEXT(cuda);
  check_same_on_cuda<float>(cuda);
  check_same_on_cuda<double>(cuda);
}

TEST(SubsetParity, CpuKeepsTheRightEntries) {
  const auto matrix = HostCsr<double>::random(40, 30, 0.4, 9, false);
  const auto all = matrix.dense();
  const auto got = run<double>(Context::cpu(1), matrix, false, Mask::some, Mask::alternate);
  ASSERT_EQ(got.structure, (std::vector<std::int64_t>{12, 15}));
  std::size_t at = 0;
  for (std::size_t i = 0; i < 40; ++i)
    for (std::size_t j = 0; j < 30; ++j) {
      if (i % 7 >= 2 || j % 2 == 0) continue;
      EXPECT_EQ(got.values[at++], all[i * 30 + j]);
    }
  EXPECT_EQ(at, got.values.size());
}

TEST(SubsetParity, RejectsAMaskOfAnotherLength) {
  const Context ctx = Context::cpu(1);
  DeviceMatrix<float> x(ctx, HostCsr<float>::random(5, 4, 0.5, 1, true));
  const std::vector<std::uint8_t> short_mask(3, 1);
  EXPECT_THROW(subset(ctx, scw::as_const(x.view(true)), short_mask, {}), ShapeMismatch);
}

}  // namespace
}  // namespace scw::pp
