// Files to start from that need no Python: our own writer, and text.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "formats.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/zarr.hpp"
#include "store.hpp"

namespace scw::fuzz {
namespace {

/// A table, or the three texts of a 10x folder.
std::string example_text(std::string_view format) {
  std::string text;
  const auto add = std::back_inserter(text);
  if (format == "table") {
    text = "cell,MT-ND1";
    for (int j = 1; j < 20; ++j) fmt::format_to(add, ",\"gene {}\"", j);
    for (int i = 0; i < 30; ++i) {
      fmt::format_to(add, "\ncell{}", i);
      for (int j = 0; j < 20; ++j) fmt::format_to(add, ",{}{}", (i * j) % 7, j % 5 == 0 ? ".5e-1" : "");
    }
  } else {
    text = "%%MatrixMarket matrix coordinate integer general\n%\n20 30 150\n";
    for (int i = 0; i < 30; ++i)
      for (int j = 0; j < 5; ++j) fmt::format_to(add, "{} {} {}\n", (i + 4 * j) % 20 + 1, i + 1, i * j + 1);
    for (int i = 0; i < 30; ++i) fmt::format_to(add, "{}AACG{}-1\n", i == 0 ? "\f" : "", i);
    for (int j = 0; j < 20; ++j) fmt::format_to(add, "{}ENSG{}\tGENE{}\tGene Expression\n", j == 0 ? "\f" : "", j, j);
  }
  return text;
}

AnnData example(const Context& ctx) {
  constexpr std::int64_t n = 40, m = 12;
  AnnData a;
  std::vector<std::string> cells, labels;
  for (std::int64_t i = 0; i < n; ++i) {
    cells.push_back("cell" + std::to_string(i));
    labels.push_back(i % 2 == 0 ? "a" : "b");
  }
  a.obs = DataFrame(cells);
  a.var = DataFrame(m);
  Csr<float> x;
  x.n_rows = n;
  x.n_cols = m;
  x.indptr = Array<std::int64_t>(ctx.memory, n + 1);
  x.indices = Array<std::int32_t>(ctx.memory, n * 3);
  x.values = Array<float>(ctx.memory, n * 3);
  for (std::int64_t i = 0; i <= n; ++i) x.indptr[i] = i * 3;
  for (std::int64_t p = 0; p < n * 3; ++p) {
    x.indices[p] = static_cast<std::int32_t>(p % 3 * 4 + p % 2);
    x.values[p] = static_cast<float>(p % 5 + 1);
  }
  std::sort(x.indices.begin(), x.indices.begin() + 3);
  MatrixElement csc = MatrixElement(std::move(x)).clone(ctx);
  a.set_X(csc.clone(ctx));
  csc.stored_layout = StoredLayout::csc;
  csc.stored_dtype = "int32";
  a.set_layer("counts", std::move(csc));
  Matrix<float> pca(ctx.memory, n, 8);
  for (std::int64_t i = 0; i < n * 8; ++i) pca.data[i] = static_cast<float>(i);
  a.set_obsm("X_pca", std::move(pca));
  a.obs.set("label", Categorical::from_labels(labels));
  a.obs.set("text", labels);
  a.obs.set("x", std::vector<double>(n, 0.5));
  a.obs.set("flag", Bools{std::vector<std::uint8_t>(n, 1)});
  Column nullable(std::vector<std::int64_t>(n, 5));
  nullable.missing = std::vector<std::uint8_t>(n, 0);
  a.obs.set("nullable", std::move(nullable));
  StructArray names;
  names.n_rows = 2;
  names.fields.emplace_back("0", std::vector<std::string>{"MS4A1", "CD79A"});
  names.fields.emplace_back("1", std::vector<std::string>{"GNLY", "NKG7"});
  a.uns["rank_genes_groups"]["names"] = names;
  a.uns["pca"]["variance"] = std::vector<double>{2.0, 1.0};
  a.uns["text"] = "t";
  a.uns["texts"] = std::vector<std::string>{"a", "b"};
  a.set_raw_from_X(ctx);
  return a;
}

std::string example_h5ad(int level) {
  const auto ctx = Context::cpu(1);
  const auto path = std::filesystem::temp_directory_path() / fmt::format("fuzz_example_{}_{}.h5ad", ::getpid(), level);
  io::WriteH5adOptions options;
  options.compression_level = level;
  io::write_h5ad(ctx, example(ctx), path.string(), options);
  std::ifstream in(path, std::ios::binary);
  std::string out{std::istreambuf_iterator<char>(in), {}};
  std::filesystem::remove(path);
  return out;
}

Bytes example_zarr(int version, io::ZarrCodec codec, bool shards) {
  const auto ctx = Context::cpu(1);
  const auto path = std::filesystem::temp_directory_path() / fmt::format("fuzz_example_{}.zarr", ::getpid());
  io::WriteZarrOptions options;
  options.format = version;
  options.codec = codec;
  options.shards = shards;
  io::write_zarr(ctx, example(ctx), path.string(), options);
  auto files = load_folder(path.string());
  std::filesystem::remove_all(path);
  files.erase(".zmetadata");  // nobody looks at it
  return pack(files);
}

}  // namespace

std::vector<Bytes> examples(const Format& format) {
  const std::string_view name = format.name;
  if (name == "mtx" || name == "table") return {to_bytes(example_text(name))};
  if (name == "10x") return {};  // of the script make_corpus.py only
  if (format.shape == Shape::store)
    return {example_zarr(2, io::ZarrCodec::blosc_lz4, false), example_zarr(3, io::ZarrCodec::zstd, true)};
  return {to_bytes(example_h5ad(0)), to_bytes(example_h5ad(1))};
}

}  // namespace scw::fuzz
