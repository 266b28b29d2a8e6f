#include "scwarp/anndata.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace scw {
namespace {

Csr<float> small_csr(const Context& ctx) {
  // 3 x 4: [1 0 2 0; 0 0 0 0; 0 3 4 5]
  Csr<float> x;
  x.n_rows = 3;
  x.n_cols = 4;
  x.indptr = Array<std::int64_t>(ctx.memory, 4);
  x.indices = Array<std::int32_t>(ctx.memory, 5);
  x.values = Array<float>(ctx.memory, 5);
  const std::int64_t indptr[] = {0, 2, 2, 5};
  const std::int32_t indices[] = {0, 2, 1, 2, 3};
  for (int i = 0; i < 4; ++i) x.indptr[i] = indptr[i];
  for (int i = 0; i < 5; ++i) {
    x.indices[i] = indices[i];
    x.values[i] = static_cast<float>(i + 1);
  }
  return x;
}

Matrix<double> counting(const Context& ctx, std::int64_t rows, std::int64_t cols) {
  Matrix<double> m(ctx.memory, rows, cols);
  for (std::int64_t i = 0; i < rows * cols; ++i) m.data[i] = static_cast<double>(i);
  return m;
}

std::vector<std::uint8_t> mask_storage;
Span<const std::uint8_t> mask(std::vector<std::uint8_t> m) {
  mask_storage = std::move(m);
  return mask_storage;
}

AnnData example(const Context& ctx) {
  AnnData a;
  a.obs = DataFrame({"c0", "c1", "c2"});
  a.var = DataFrame({"g0", "g1", "g2", "g3"});
  a.set_X(small_csr(ctx));
  a.set_layer("dense", counting(ctx, 3, 4));
  a.set_obsm("X_pca", counting(ctx, 3, 2));
  a.set_varm("PCs", counting(ctx, 4, 2));
  a.set_obsp("d", counting(ctx, 3, 3));
  a.set_varp("v", counting(ctx, 4, 4));
  a.obs.set("n", std::vector<std::int64_t>{10, 20, 30});
  a.obs.set("group", Categorical::from_labels({"b", "a", "b"}));
  a.var.set("name", std::vector<std::string>{"w", "x", "y", "z"});
  a.set_raw_from_X(ctx);
  return a;
}

TEST(AnnData, SubsetsCellsEverywhere) {
  const auto ctx = Context::cpu(2);
  AnnData a = example(ctx);
  const std::vector<std::uint8_t> keep{1, 0, 1};
  a.subset_obs(ctx, keep);
  EXPECT_EQ(a.n_obs(), 2);
  const auto& x = std::get<Csr<float>>(a.X->data);
  EXPECT_EQ(std::vector<std::int64_t>(x.indptr.begin(), x.indptr.end()), (std::vector<std::int64_t>{0, 2, 5}));
  EXPECT_EQ(x.values[2], 3.0F);
  EXPECT_EQ(a.obs.index(), (std::vector<std::string>{"c0", "c2"}));
  const auto& group = std::get<Categorical>(a.obs.at("group").data);
  EXPECT_EQ(group.category_names(), std::vector<std::string>{"b"});
  EXPECT_EQ(group.codes, (std::vector<std::int32_t>{0, 0}));
  EXPECT_EQ(std::get<Matrix<double>>(a.obsm_matrix("X_pca").data).data[3], 5.0);
  EXPECT_EQ(std::get<Matrix<double>>(a.obsp_matrix("d").data).data[1], 2.0);
  EXPECT_EQ(a.raw->X.n_rows(), 2);
  EXPECT_EQ(a.raw->X.n_cols(), 4);
  a.validate();
}

TEST(AnnData, SubsetsGenesEverywhereButRaw) {
  const auto ctx = Context::cpu(2);
  AnnData a = example(ctx);
  const std::vector<std::uint8_t> keep{0, 1, 1, 0};
  a.subset_var(ctx, keep);
  const auto& x = std::get<Csr<float>>(a.X->data);
  EXPECT_EQ(x.n_cols, 2);
  EXPECT_EQ(std::vector<std::int32_t>(x.indices.begin(), x.indices.end()), (std::vector<std::int32_t>{1, 0, 1}));
  EXPECT_EQ(std::vector<float>(x.values.begin(), x.values.end()), (std::vector<float>{2, 3, 4}));
  EXPECT_EQ(std::get<Matrix<double>>(a.matrix("dense").data).data[2], 5.0);
  EXPECT_EQ(a.raw->X.n_cols(), 4);
  EXPECT_EQ(a.raw->var.n_rows(), 4);
  a.validate();
}

TEST(AnnData, RefusesWrongShapes) {
  const auto ctx = Context::cpu(1);
  AnnData a = example(ctx);
  EXPECT_THROW(a.set_X(counting(ctx, 4, 4)), ShapeMismatch);
  EXPECT_THROW(a.set_obsm("bad", counting(ctx, 2, 2)), ShapeMismatch);
  EXPECT_THROW(a.obs.set("bad", std::vector<double>{1.0}), ShapeMismatch);
  EXPECT_THROW(a.subset_obs(ctx, mask({1})), ShapeMismatch);
  a.obsm.emplace("sneaked in", counting(ctx, 2, 2));
  EXPECT_THROW(a.validate(), ShapeMismatch);
  EXPECT_THROW(a.subset_obs(ctx, mask({1, 0, 0})), ShapeMismatch);
  EXPECT_EQ(a.n_obs(), 3);
}

TEST(AnnData, EmptySubsets) {
  const auto ctx = Context::cpu(1);
  AnnData a = example(ctx);
  a.subset_obs(ctx, mask({0, 0, 0}));
  a.subset_var(ctx, mask({0, 0, 0, 0}));
  EXPECT_EQ(a.n_obs(), 0);
  EXPECT_EQ(a.n_vars(), 0);
  a.validate();
}

TEST(AnnData, UnsTree) {
  Value uns = Dict{};
  uns["pca"]["variance"] = std::vector<double>{2.0, 1.0};
  uns["pca"]["params"]["zero_center"] = true;
  ASSERT_NE(uns.find("pca"), nullptr);
  EXPECT_EQ(uns.find("pca")->find("variance")->get<NdArray<double>>()->values[0], 2.0);
  EXPECT_EQ(uns.find("nothing"), nullptr);
  Value copy = uns;
  copy["pca"]["variance"] = 1;
  EXPECT_NE(uns.find("pca")->find("variance")->get<NdArray<double>>(), nullptr);
}

TEST(AnnData, StoredPathIsForgottenWhenChanged) {
  Value v = Dict{};
  v["a"]["b"] = 1;
  v.set_stored_path("/uns");
  v.dict()->at("a").set_stored_path("/uns/a");
  EXPECT_TRUE(v.stored_path().empty());
  v.set_stored_path("/uns");
  EXPECT_EQ(std::as_const(v).find("a")->stored_path(), "/uns/a");
  EXPECT_EQ(v.stored_path(), "/uns");
  v["a"]["c"] = 2;
  EXPECT_TRUE(v.stored_path().empty());
  EXPECT_TRUE(std::as_const(v).find("a")->stored_path().empty());
}

TEST(Column, Conversions) {
  Column c(std::vector<std::int64_t>{3, 1, 3});
  c.missing = std::vector<std::uint8_t>{0, 1, 0};
  EXPECT_EQ(c.to_strings(), (std::vector<std::string>{"3", "nan", "3"}));
  EXPECT_EQ(c.to_categorical().codes, (std::vector<std::int32_t>{0, -1, 0}));
  EXPECT_EQ(c.to_categorical().n_categories(), 1);
  EXPECT_TRUE(std::isnan(c.to_double()[1]));
  EXPECT_THROW(Column(std::vector<std::string>{"x"}).to_double(), DTypeMismatch);
  EXPECT_EQ(Column(std::vector<double>{1.0, 0.5}).to_strings(), (std::vector<std::string>{"1.0", "0.5"}));
}

}  // namespace
}  // namespace scw
