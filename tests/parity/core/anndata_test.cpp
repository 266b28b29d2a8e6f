#include "scwarp/anndata.hpp"

#include "parity/parity.hpp"

namespace scw {
namespace {

template <class V>
MatrixElement element(const parity::HostCsr<V>& x, bool sparse) {
  const auto array = [](const auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    Array<T> out(host_memory(), static_cast<std::int64_t>(values.size()));
    std::copy(values.begin(), values.end(), out.begin());
    return out;
  };
  if (!sparse) {
    Matrix<V> out;
    out.n_rows = x.n_rows;
    out.n_cols = x.n_cols;
    out.data = array(x.dense());
    return MatrixElement(std::move(out));
  }
  Csr<V> out;
  out.n_rows = x.n_rows;
  out.n_cols = x.n_cols;
  out.indptr = array(x.indptr);
  out.indices = array(x.indices);
  out.values = array(x.values);
  return MatrixElement(std::move(out));
}

std::vector<double> contents(const MatrixElement& x) {
  std::vector<double> out;
  std::visit(
      [&](const auto& m) {
        if constexpr (requires { m.indptr; }) {
          out.assign(m.indptr.begin(), m.indptr.end());
          out.insert(out.end(), m.indices.begin(), m.indices.end());
          out.insert(out.end(), m.values.begin(), m.values.end());
        } else {
          out.assign(m.data.begin(), m.data.end());
        }
      },
      x.data);
  return out;
}

/// X, a layer and a neighbour graph through the filters of the main job, X and the graph on ctx.device.
template <class V>
std::vector<double> filtered(const Context& ctx, bool sparse) {
  AnnData a;
  a.obs = DataFrame(60);
  a.var = DataFrame(40);
  a.set_X(element(parity::HostCsr<V>::random(60, 40, 0.2, 1, true), sparse));
  a.set_layer("host", element(parity::HostCsr<V>::random(60, 40, 0.1, 2, true), true));
  a.to_device(ctx);
  EXPECT_EQ(a.X->device(), ctx.device);
  a.set_obsp("graph", element(parity::HostCsr<float>::random(60, 60, 0.1, 3, false), true).copy_to(ctx, ctx.device));
  a.set_raw_from_X(ctx);
  std::vector<std::uint8_t> cells(60, 1);
  std::vector<std::uint8_t> genes(40, 1);
  for (std::size_t i = 0; i < 60; i += 7) cells[i] = 0;
  for (std::size_t j = 0; j < 40; j += 3) genes[j] = 0;
  a.subset_obs(ctx, Span<const std::uint8_t>(cells));
  a.subset_var(ctx, Span<const std::uint8_t>(genes));
  a.X = a.X->clone(ctx);
  EXPECT_EQ(a.X->device(), ctx.device);
  EXPECT_EQ(a.raw->X.device(), ctx.device);
  a.to_host(ctx);
  a.validate();
  std::vector<double> out;
  const std::vector<const MatrixElement*> all{&*a.X, &a.raw->X, &a.obsp_matrix("graph"), &a.matrix("host")};
  for (const MatrixElement* m : all) {
    EXPECT_EQ(m->device(), Device{});
    const auto own = contents(*m);
    out.insert(out.end(), own.begin(), own.end());
  }
  EXPECT_EQ(a.n_obs(), 51);
  EXPECT_EQ(a.n_vars(), 26);
  return out;
}

TEST(AnnDataParity, FiltersOnADevice) {
  SCW_CUDA_CONTEXT(cuda);
  for (const bool sparse : {true, false}) {
    parity::expect_same_bits(filtered<float>(Context::cpu(2), sparse), filtered<float>(cuda, sparse));
    parity::expect_same_bits(filtered<double>(Context::cpu(2), sparse), filtered<double>(cuda, sparse));
  }
}

TEST(AnnDataParity, ToDeviceAndBackOnTheCpu) {
  const auto out = filtered<float>(Context::cpu(1), true);
  EXPECT_GT(out.size(), 500u);
}

}  // namespace
}  // namespace scw
