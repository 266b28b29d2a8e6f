#include "scwarp/io/tenx.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scwarp/core/error.hpp"

namespace scw::io {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const char* const kMatrix =
    "%%MatrixMarket matrix coordinate integer general\n%metadata\n\n4 3 5\n3 1 7\n1 1 2\n4 3 1\n2 3 9\n1 2 5\n";
const char* const kBarcodes = "AAA-1\r\nCCC-1\r\nGGG-1\r\n";
const char* const kFeatures =
    "ENSG1\tACTB\tGene Expression\nENSG2\tCD3\tGene Expression\nAB1\tCD3\tAntibody Capture\nENSG4\tCD3\tGene "
    "Expression\n";

AnnData read(std::string_view matrix, std::string_view barcodes = kBarcodes, std::string_view features = kFeatures,
             const Read10xMtxOptions& options = {}) {
  return read_10x_mtx(Context::cpu(1), matrix, barcodes, features, options);
}

std::vector<float> dense(const AnnData& a) {
  const auto& x = std::get<Csr<float>>(a.X->data);
  std::vector<float> out(static_cast<std::size_t>(x.n_rows * x.n_cols));
  for (std::int64_t i = 0; i < x.n_rows; ++i)
    for (auto p = x.indptr[i]; p < x.indptr[i + 1]; ++p)
      out[static_cast<std::size_t>(i * x.n_cols + x.indices[p])] = x.values[p];
  return out;
}

TEST(TenxMtx, CellsByGenesWithUniqueNames) {
  Read10xMtxOptions all;
  all.gex_only = false;
  const AnnData a = read(kMatrix, kBarcodes, kFeatures, all);
  EXPECT_THAT(a.obs.index(), ElementsAre("AAA-1", "CCC-1", "GGG-1"));
  EXPECT_THAT(a.var.index(), ElementsAre("ACTB", "CD3", "CD3-1", "CD3-2"));
  EXPECT_THAT(a.var.at("gene_ids").to_strings(), ElementsAre("ENSG1", "ENSG2", "AB1", "ENSG4"));
  EXPECT_THAT(dense(a), ElementsAre(2, 0, 7, 0, 5, 0, 0, 0, 0, 9, 0, 1));
}

TEST(TenxMtx, GeneExpressionOnlyAndIds) {
  Read10xMtxOptions ids;
  ids.gene_symbols = false;
  const AnnData a = read(kMatrix, kBarcodes, kFeatures, ids);
  EXPECT_THAT(a.var.index(), ElementsAre("ENSG1", "ENSG2", "ENSG4"));
  EXPECT_THAT(dense(a), ElementsAre(2, 0, 0, 5, 0, 0, 0, 9, 1));
}

TEST(TenxMtx, CountsOverTwoToThe24AreDoubles) {
  const AnnData a = read("%%MatrixMarket matrix coordinate integer general\n4 3 1\n1 1 16777217\n");
  EXPECT_EQ(std::get<Csr<double>>(a.X->data).values[0], 16777217.0);
}

struct Bad {
  const char *matrix, *barcodes, *features, *message;
};

class TenxMtxBad : public testing::TestWithParam<Bad> {};

TEST_P(TenxMtxBad, IsAnErrorWithItsPlace) {
  const Bad& bad = GetParam();
  try {
    read(bad.matrix, bad.barcodes, bad.features);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(bad.message));
  }
}

#define SCW_HEADER "%%MatrixMarket matrix coordinate integer general\n"
INSTANTIATE_TEST_SUITE_P(
    Files, TenxMtxBad,
    testing::Values(
        Bad{"hello\n", kBarcodes, kFeatures, "line 1: is not a Matrix Market header"},
        Bad{"", kBarcodes, kFeatures, "is not a Matrix Market header"},
        Bad{"%%MatrixMarket matrix array real general\n", kBarcodes, kFeatures, "expected: matrix coordinate"},
        Bad{SCW_HEADER, kBarcodes, kFeatures, "the sizes are missing"},
        Bad{SCW_HEADER "4 3 x\n", kBarcodes, kFeatures, "expected the number of entries (got 'x')"},
        Bad{SCW_HEADER "5 3 0\n", kBarcodes, kFeatures, "5 x 3 (expected 4 features x 3 barcodes)"},
        Bad{SCW_HEADER "4 3 2\n1 1 1\n", kBarcodes, kFeatures, "has 1 entries (expected 2"},
        Bad{SCW_HEADER "4 3 1\n5 1 1\n", kBarcodes, kFeatures, "line 3: entry (5, 1) is out of range"},
        Bad{SCW_HEADER "4 3 1\n0 1 1\n", kBarcodes, kFeatures, "entry (0, 1) is out of range"},
        Bad{SCW_HEADER "4 3 1\n1 1 1e\n", "A\nB\n", kFeatures, "4 features x 2 barcodes"},
        Bad{SCW_HEADER "4 3 1\n1 1\n", kBarcodes, kFeatures, "expected a value"},
        Bad{SCW_HEADER "4 3 2\n1 1 1\n1 1 2\n", kBarcodes, kFeatures, "gene 1 occurs twice in cell 1"},
        Bad{SCW_HEADER "4 3 99999999999999999999\n", kBarcodes, kFeatures, "expected the number of entries"},
        Bad{kMatrix, kBarcodes, "ENSG1\n", "has 1 fields"},
        Bad{kMatrix, kBarcodes, "a\tb\tc\nd\te\n", "some lines have a feature type"}));

TEST(TenxMtx, MissingFolderOrFile) { EXPECT_THROW(read_10x_mtx(Context::cpu(1), "/does/not/exist"), IoError); }

TEST(MakeNamesUnique, AsAnndataDoes) {
  std::vector<std::string> names{"a", "a", "b", "a-1", "a", "b"};
  make_names_unique(names);
  EXPECT_THAT(names, ElementsAre("a", "a-2", "b", "a-1", "a-3", "b-1"));
}

}  // namespace
}  // namespace scw::io
