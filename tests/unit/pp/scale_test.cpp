#include "scwarp/pp/scale.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "scwarp/core/error.hpp"

namespace scw::pp {
namespace {

// Column 0: 0 2 4 (mean 2, sd 2); column 1: constant 5; column 2: -1 0 1 (sd 1).
std::vector<float> sample() { return {0, 5, -1, 2, 5, 0, 4, 5, 1}; }
struct Sparse {
  std::vector<std::int64_t> indptr{0, 2, 4, 7};
  std::vector<std::int32_t> indices{1, 2, 0, 1, 0, 1, 2};
  std::vector<float> values{5, -1, 2, 5, 4, 5, 1};
  CsrView<float> view() { return {3, 3, indptr, indices, Span<float>(values)}; }
};

TEST(Scale, CentredDense) {
  std::vector<float> x = sample();
  const auto s = scale(Context::cpu(2), MatrixView<float>(x.data(), 3, 3));
  EXPECT_EQ(x, (std::vector<float>{-1, 0, -1, 0, 0, 0, 1, 0, 1}));
  EXPECT_EQ(s.mean[0], 2);
  EXPECT_EQ(s.std[0], 2);
  EXPECT_EQ(s.std[1], 1);
}

TEST(Scale, RowsWithPadding) {
  std::vector<float> x{0, 5, -1, 99, 2, 5, 0, 99, 4, 5, 1, 99};
  scale(Context::cpu(1), MatrixView<float>(x.data(), 3, 3, 4));
  EXPECT_EQ(x, (std::vector<float>{-1, 0, -1, 99, 0, 0, 0, 99, 1, 0, 1, 99}));
}

TEST(Scale, ClipsBothSidesOnlyWhenCentred) {
  std::vector<float> x = sample();
  scale(Context::cpu(1), MatrixView<float>(x.data(), 3, 3), {.zero_center = true, .max_value = 0.5});
  EXPECT_EQ(x, (std::vector<float>{-0.5, 0, -0.5, 0, 0, 0, 0.5, 0, 0.5}));
  x = sample();
  scale(Context::cpu(1), MatrixView<float>(x.data(), 3, 3), {.zero_center = false, .max_value = 0.5});
  EXPECT_EQ(x, (std::vector<float>{0, 0.5, -1, 0.5, 0.5, 0, 0.5, 0.5, 0.5}));
}

TEST(Scale, SparseKeepsItsPatternOrBecomesDense) {
  Sparse x;
  AnyDenseMatrix dense;
  scale_to_dense(Context::cpu(2), CsrView<const float>(x.view()), dense, {.zero_center = true, .max_value = 0.5});
  const auto& d = std::get<Matrix<float>>(dense);
  EXPECT_EQ(std::vector<float>(d.data.begin(), d.data.end()),
            (std::vector<float>{-0.5, 0, -0.5, 0, 0, 0, 0.5, 0, 0.5}));
  scale(Context::cpu(2), x.view(), {.zero_center = false});
  EXPECT_EQ(x.values, (std::vector<float>{5, -1, 1, 5, 2, 5, 1}));
}

TEST(Scale, MaskedRowsStay) {
  const std::vector<std::uint8_t> mask{1, 0, 1};
  ScaleOptions o;
  o.mask = mask;
  std::vector<float> x = sample();
  const auto s = scale(Context::cpu(1), MatrixView<float>(x.data(), 3, 3), o);
  EXPECT_FLOAT_EQ(x[0], -2 / std::sqrt(8.0f));
  EXPECT_EQ(x[3], 2);
  EXPECT_EQ(x[4], 5);
  EXPECT_EQ(s.mean[0], 2);
  Sparse sparse;
  AnyDenseMatrix dense;
  scale_to_dense(Context::cpu(1), CsrView<const float>(sparse.view()), dense, o);
  for (std::int64_t k = 0; k < 9; ++k)
    EXPECT_EQ(std::get<Matrix<float>>(dense).data[k], x[static_cast<std::size_t>(k)]) << k;
}

TEST(Scale, Errors) {
  Sparse x;
  EXPECT_THROW(scale(Context::cpu(1), x.view()), InvalidArgument);
  EXPECT_THROW(scale(Context::cpu(1), x.view(), {.zero_center = false, .max_value = 0.0}), InvalidArgument);
  const std::vector<std::uint8_t> mask{1};
  ScaleOptions o{.zero_center = false};
  o.mask = mask;
  EXPECT_THROW(scale(Context::cpu(1), x.view(), o), ShapeMismatch);
  EXPECT_EQ(x.values, Sparse().values);
}

}  // namespace
}  // namespace scw::pp
