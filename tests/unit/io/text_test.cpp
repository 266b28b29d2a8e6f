#include "scwarp/io/text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scwarp/core/error.hpp"

namespace scw::io {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

AnnData read(std::string_view text, Orientation orientation = Orientation::automatic) {
  ReadTextOptions options;
  options.orientation = orientation;
  return read_text(Context::cpu(1), text, "table", options);
}

std::vector<double> dense(const AnnData& a) {
  std::vector<double> out(static_cast<std::size_t>(a.n_obs() * a.n_vars()));
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (requires { x.indptr; }) {
          for (std::int64_t i = 0; i < x.n_rows; ++i)
            for (auto p = x.indptr[i]; p < x.indptr[i + 1]; ++p)
              out[static_cast<std::size_t>(i * x.n_cols + x.indices[p])] = x.values[p];
        } else {
          std::copy(x.data.begin(), x.data.end(), out.begin());
        }
      },
      a.X->data);
  return out;
}

TEST(Text, CellsByGenesInEveryDress) {
  for (const char* text : {",g1,g2,g3\nc1,1,0,2\nc2,0,0,3.5\n", "g1,g2,g3\r\nc1,1,0,2\r\nc2,0,0,3.5",
                           "\tg1\tg2\tg3\nc1\t1\t0\t2\n\nc2\t0\t 0\t3.5 \n", "id;g1;g2;g3\nc1;1;0;2\nc2;0;0;35e-1\n",
                           "\xEF\xBB\xBF\"\",\"g1\",\"g2\",\"g3\"\n\"c1\",\"1\",0,2\n\"c2\",0,0,3.5\n"}) {
    const AnnData a = read(text);
    EXPECT_THAT(a.obs.index(), ElementsAre("c1", "c2")) << text;
    EXPECT_THAT(a.var.index(), ElementsAre("g1", "g2", "g3")) << text;
    EXPECT_THAT(dense(a), ElementsAre(1, 0, 2, 0, 0, 3.5)) << text;
    EXPECT_TRUE(a.X->is_sparse());
  }
}

TEST(Text, GenesByCellsByNameOrByOption) {
  const AnnData a = read("cell,c1,c2\nMT-ND1,1,2\nACTB,3,4\nCD3E,0,6\n");
  EXPECT_THAT(a.var.index(), ElementsAre("MT-ND1", "ACTB", "CD3E"));
  EXPECT_THAT(dense(a), ElementsAre(1, 3, 0, 2, 4, 6));
  EXPECT_FALSE(a.X->is_sparse());
  const AnnData b = read("x,c1,c2\nA,1,2\nB,3,4\n", Orientation::rows_are_genes);
  EXPECT_THAT(b.obs.index(), ElementsAre("c1", "c2"));
  EXPECT_THAT(dense(b), ElementsAre(1, 3, 2, 4));
  EXPECT_THAT(read("x,c1,c2\nA,1,2\n", Orientation::rows_are_cells).obs.index(), ElementsAre("A"));
}

TEST(Text, QuotedNamesMayHoldTheDelimiter) {
  const AnnData a = read(",\"a,b\",c\n\"x,\"\"y\"\"\",1,2\n");
  EXPECT_THAT(a.var.index(), ElementsAre("a,b", "c"));
  EXPECT_THAT(a.obs.index(), ElementsAre("x,\"y\""));
  EXPECT_THAT(dense(a), ElementsAre(1, 2));
}

TEST(Text, ErrorsNameLineAndColumn) {
  const auto message = [](std::string_view text) {
    try {
      read(text);
    } catch (const FormatError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(message(""), HasSubstr("the table is empty"));
  EXPECT_THAT(message("a,b\n"), HasSubstr("names and no rows"));
  EXPECT_THAT(message(",a,b\nc1,1,x\n"), HasSubstr("'table', line 2: column 3: expected a number (got 'x')"));
  EXPECT_THAT(message(",a,b\nc1,1,2\nc2,1\n"), HasSubstr("line 3: has 1 values (expected 2"));
  EXPECT_THAT(message(",a,b\nc1,1,\n"), HasSubstr("expected a number (got '')"));
}

TEST(Text, WholeNumbersOverTwoToThe24AreDoubles) {
  EXPECT_THAT(dense(read(",a,b\nc1,16777217,0\n")), ElementsAre(16777217, 0));
}

}  // namespace
}  // namespace scw::io
