#include "scwarp/io/h5ad.hpp"

#include <algorithm>

#include "core/check.hpp"
#include "io/anndata_codec.hpp"
#include "io/hdf5_output.hpp"
#include "io/hdf5_store.hpp"

namespace scw::io {
namespace {

constexpr const char* kRead = "read_h5ad";
constexpr const char* kWrite = "write_h5ad";

std::int64_t widest_frame(const AnnData& a) {
  std::int64_t n = std::max(a.obs.n_cols(), a.var.n_cols());
  const auto look = [&](const AxisElements& all) {
    for (const auto& [name, e] : all)
      if (const auto* f = std::get_if<DataFrame>(&e)) n = std::max(n, f->n_cols());
  };
  look(a.obsm);
  look(a.varm);
  if (a.raw) {
    n = std::max(n, a.raw->var.n_cols());
    look(a.raw->varm);
  }
  return n;
}

h5::WriteOptions write_options(const WriteH5adOptions& o) {
  constexpr std::int64_t kSmallest = 4 << 10, kLargest = 1 << 30;
  const bool zstd = o.compression == Compression::zstd;
  const int most = zstd ? 19 : 12;
  SCW_EXPECT(o.compression_level >= -1 && o.compression_level <= most, kWrite,
             "compression_level must be 0 to {} for {}, or -1 (got {})", most, zstd ? "zstd" : "gzip",
             o.compression_level);
  SCW_EXPECT(o.chunk_bytes >= kSmallest && o.chunk_bytes <= kLargest, kWrite, "chunk_bytes must be {} to {} (got {})",
             kSmallest, kLargest, o.chunk_bytes);
  h5::WriteOptions out;
  out.compression = o.compression_level == 0 ? Compression::none : o.compression;
  out.level = o.compression_level > 0 ? o.compression_level : zstd ? 3 : 1;
  out.chunk_bytes = o.chunk_bytes;
  return out;
}

}  // namespace

AnnData read_h5ad(const Context& ctx, const std::string& path, const ReadH5adOptions& options) {
  return read_anndata(ctx, Source::open(kRead, path), options);
}

AnnData read_h5ad(const Context& ctx, Span<const std::byte> image, const std::string& name,
                  const ReadH5adOptions& options) {
  return read_anndata(ctx, Source::open_image(kRead, image, name), options);
}

MatrixElement read_h5ad_matrix(const Context& ctx, const std::string& path, const std::string& element,
                               const ReadH5adOptions& options) {
  return read_anndata_matrix(ctx, Source::open(kRead, path), element, options);
}

std::vector<std::string> read_h5ad_texts(const Context& ctx, const std::string& path, const std::string& element) {
  const auto source = Source::open(kRead, path);
  auto session = source->session();
  auto node = h5::find(h5::root(*source), element);
  SCW_EXPECT(node.has_value(), kRead, "'{}' has no '{}'", path, element);
  const auto d = h5::dataset(std::move(*node));
  return h5::read_strings(ctx.host(), d, &session);
}

void write_h5ad(const Context& ctx, const AnnData& data, const std::string& path, const WriteH5adOptions& options) {
  const h5::WriteOptions how = write_options(options);
  data.validate();
  // The oldest format that can hold the file, for the oldest readers: it keeps attributes below 64 KiB, and the list
  // of columns is one.
  constexpr std::int64_t kMaxOldColumns = 3900;
  const h5::Session session;
  h5::OutputFile file(kWrite, path, widest_frame(data) > kMaxOldColumns);
  HdfWriter out(ctx, kWrite, path, file.id(), how);
  write_anndata(out, data);
  file.commit();
}

}  // namespace scw::io
