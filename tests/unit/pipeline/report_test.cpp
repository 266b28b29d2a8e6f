#include "scwarp/pipeline/report.hpp"

#include <gtest/gtest.h>
#include <libdeflate.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "scwarp/core/error.hpp"
#include "test_folder.hpp"

namespace scw::pipeline {
namespace {

using nlohmann::json;

ReportData small_report() {
  ReportData d;
  d.title = "cells & <genes>";
  d.n_cells = 4;
  d.x = {-2.0f, 0.0f, 1.0f, 2.0f};
  d.y = {0.0f, 1.0f, 2.0f, 3.0f};
  d.cell_names = {"a", "b", "c", "</script>"};
  d.colourings = {{"leiden", {"0", "1"}, {0, 1, -1, 1}, {}},
                  {"counts", {}, {}, {10.0f, 20.0f, std::numeric_limits<float>::quiet_NaN(), 40.0f}}};
  d.genes = {{"MS4A1", {0.0f, 0.0f, 1.5f, 3.0f}}};
  d.cluster_key = "leiden";
  d.markers = {{"0", {{"MS4A1", 12.5, std::numeric_limits<double>::infinity(), 1e-30, 1e-27, 0.9, 0.1}}}};
  return d;
}

std::string element(const std::string& html, const std::string& id) {
  const auto start = html.find('>', html.find("id=\"" + id + "\"")) + 1;
  return html.substr(start, html.find("</script>", start) - start);
}

/// base64 and gzip, the other way.
std::vector<unsigned char> unpack(const std::string& text, std::size_t size) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string packed;
  unsigned bits = 0, have = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<unsigned>(digits.find(c));
    have += 6;
    if (have >= 8) packed += static_cast<char>((bits >> (have -= 8)) & 255u);
  }
  std::vector<unsigned char> out(size);
  auto* inflate = libdeflate_alloc_decompressor();
  EXPECT_EQ(libdeflate_gzip_decompress(inflate, packed.data(), packed.size(), out.data(), out.size(), nullptr),
            LIBDEFLATE_SUCCESS);
  libdeflate_free_decompressor(inflate);
  return out;
}

class Report : public testing::Test {
 protected:
  void SetUp() override {
    if (plotly_version().empty()) GTEST_SKIP() << "built without Plotly.js";
  }
  Context ctx = Context::cpu(2);
};

TEST_F(Report, HoldsTheDataQuantised) {
  const std::string html = render_report(ctx, small_report());
  const json meta = json::parse(element(html, "scw-meta"));
  EXPECT_EQ(meta["title"], "cells & <genes>");
  const json& x = meta["embedding"]["x"];
  const auto codes = unpack(element(html, x["id"]), 8);
  const std::vector<float> expected = {-2.0f, 0.0f, 1.0f, 2.0f};
  for (std::size_t i = 0; i < 4; ++i) {
    const double value = x["offset"].get<double>() + x["scale"].get<double>() * (codes[2 * i] + 256 * codes[2 * i + 1]);
    EXPECT_NEAR(value, expected[i], 1e-4);
  }
  EXPECT_EQ(unpack(element(html, meta["colourings"][0]["codes"]["id"]), 8),
            (std::vector<unsigned char>{0, 0, 1, 0, 255, 255, 1, 0}));
  EXPECT_EQ(meta["colourings"][0]["sizes"], (json{1, 2}));
  const auto counts = unpack(element(html, meta["colourings"][1]["values"]["id"]), 8);
  EXPECT_EQ(counts[4] + 256 * counts[5], 65535);  // NaN
  EXPECT_EQ(unpack(element(html, meta["genes"][0]["values"]["id"]), 4), (std::vector<unsigned char>{0, 0, 127, 254}));
  EXPECT_EQ(meta["markers"][0]["rows"][0][2], nullptr);  // JSON has no infinity
}

TEST_F(Report, IsOneFileThatAsksForNothing) {
  const std::string html = render_report(ctx, small_report());
  EXPECT_NE(html.find("connect-src 'none'"), std::string::npos);
  EXPECT_EQ(html.find("<script src"), std::string::npos);
  EXPECT_NE(html.find("<title>cells &amp; &lt;genes&gt;</title>"), std::string::npos);
  EXPECT_EQ(html.find("{{"),
            html.find("{{", html.find("plotly.js v")));  // no mark of the template is left before Plotly's code
}

TEST_F(Report, RefusesArraysOfAnotherLength) {
  auto d = small_report();
  d.x.pop_back();
  EXPECT_THROW(render_report(ctx, d), ShapeMismatch);
  d = small_report();
  d.genes[0].values.push_back(1);
  EXPECT_THROW(render_report(ctx, d), ShapeMismatch);
}

TEST_F(Report, WritesAtomically) {
  const TestFolder folder;
  write_report(ctx, small_report(), folder / "r.html");
  EXPECT_GT(std::filesystem::file_size(folder / "r.html"), 1000000u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_THROW(write_report(ctx, small_report(), folder / "missing" / "r.html"), IoError);
}

TEST_F(Report, TakesThePlaceOfRegularFilesOnly) {
  namespace fs = std::filesystem;
  const TestFolder folder;
  const auto target = folder / "target.html", link = folder / "link.html", pipe = folder / "pipe.html";
  std::ofstream(target) << "old";
  fs::permissions(target, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("target.html", link);
  write_report(ctx, small_report(), link);
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_GT(fs::file_size(target), 1000000u);
  EXPECT_EQ(fs::status(target).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(write_report(ctx, small_report(), pipe), IoError);
  EXPECT_TRUE(fs::is_fifo(pipe));
  if (::geteuid() == 0) return;  // root may write to every file
  fs::permissions(target, fs::perms::owner_read);
  EXPECT_THROW(write_report(ctx, small_report(), target), IoError);
}

TEST_F(Report, EmptyDataGiveAPage) { EXPECT_GT(render_report(ctx, {}).size(), 1000000u); }

TEST(ReportBudget, ShrinksWithTheNumberOfCells) {
  EXPECT_EQ(report_gene_budget(0), 200);
  EXPECT_EQ(report_gene_budget(1000000), 48);
  EXPECT_EQ(report_gene_budget(100000000), 8);
}

}  // namespace
}  // namespace scw::pipeline
