#include "scwarp/io/read.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "io/hdf5.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "read";

/// HDF5's signature stands at byte 0, or at 512, 1024, ... behind a user block.
bool is_hdf5(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) detail::fail<IoError>(kOp, "'{}' cannot be opened ({})", path, std::strerror(errno));
  std::array<char, 8> start{};
  for (long at = 0; at <= 4096; at = at == 0 ? 512 : at * 2) {
    if (std::fseek(file.get(), at, SEEK_SET) != 0 || std::fread(start.data(), 1, 8, file.get()) != 8) return false;
    if (std::memcmp(start.data(), "\x89HDF\r\n\x1a\n", 8) == 0) return true;
  }
  return false;
}

bool is_h5ad(const std::string& path) {
  const h5::Session session;
  const auto source = Source::open(kOp, path);
  const auto root = h5::root(*source);
  return h5::find(root, "obs").has_value() && h5::find(root, "var").has_value();
}

}  // namespace

AnnData read(const Context& ctx, const std::string& path, const ReadOptions& options) {
  const auto is_kind = [&](const char* kind, bool has_genomes, bool is_table) {
    // With several inputs the options are meant for some of them.
    if (!has_genomes && !options.genome.empty())
      ctx.warn(fmt::format("{}: '{}' is {}: the genome is not looked at (only 10x HDF5 has genomes)", kOp, path, kind));
    if (!is_table && options.orientation != Orientation::automatic)
      ctx.warn(fmt::format("{}: '{}' is {}: what the rows are is only looked at for tables", kOp, path, kind));
  };
  std::error_code ec;
  const auto status = std::filesystem::status(path, ec);
  SCW_EXPECT_AS(IoError, std::filesystem::exists(status), kOp, "'{}' does not exist", path);
  if (std::filesystem::is_directory(status)) {
    if (is_zarr(path)) {
      is_kind("a Zarr store", false, false);
      ReadZarrOptions o;
      o.stream_matrices = options.stream_matrices;
      return read_zarr(ctx, path, o);
    }
    is_kind("a 10x folder", false, false);
    Read10xMtxOptions o;
    o.gex_only = options.gex_only;
    o.stream_matrices = options.stream_matrices;
    return read_10x_mtx(ctx, path, o);
  }
  if (is_hdf5(path)) {
    if (is_h5ad(path)) {
      is_kind("an h5ad file", false, false);
      ReadH5adOptions o;
      o.stream_matrices = options.stream_matrices;
      return read_h5ad(ctx, path, o);
    }
    is_kind("a 10x HDF5 file", true, false);
    AnnData a = read_10x_h5(ctx, path, {options.genome, options.gex_only, options.stream_matrices});
    auto names = a.var.index();
    make_names_unique(names);
    a.var.set_index(std::move(names));
    return a;
  }
  is_kind("a table", false, true);
  ReadTextOptions o;
  o.orientation = options.orientation;
  return read_text(ctx, path, o);
}

}  // namespace scw::io
