#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/zarr.hpp"

#include <cstring>

#include "bind.hpp"
#include "io/to_python.hpp"

namespace scw::python {
namespace {

using Numbers = nb::ndarray<nb::ro, nb::device::cpu>;

template <class T>
void copy_elements(const std::byte* from, std::int64_t stride, std::int64_t n, std::byte* out) {
  for (std::int64_t i = 0; i < n; ++i)
    std::memcpy(out + static_cast<std::size_t>(i) * sizeof(T), from + i * stride, sizeof(T));
}

/// n elements of `size` bytes, `stride` bytes apart.
void gather(const std::byte* from, std::int64_t stride, std::int64_t n, std::size_t size, std::byte* out) {
  switch (size) {
    case 1:
      return copy_elements<std::uint8_t>(from, stride, n, out);
    case 2:
      return copy_elements<std::uint16_t>(from, stride, n, out);
    case 4:
      return copy_elements<std::uint32_t>(from, stride, n, out);
    default:
      return copy_elements<std::uint64_t>(from, stride, n, out);
  }
}

const std::byte* bytes_of(const Numbers& x) { return static_cast<const std::byte*>(x.data()); }

/// A range of a one-dimensional array, as it is.
io::FillRange elements(const Numbers& x) {
  const std::byte* data = bytes_of(x);
  const std::size_t size = x.itemsize();
  return [data, size](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, data + static_cast<std::size_t>(first) * size, static_cast<std::size_t>(n) * size);
  };
}

/// Rows of a two-dimensional array of any strides. Column by column where columns are what is contiguous.
io::FillRange rows(const Numbers& x) {
  const std::byte* data = bytes_of(x);
  const std::size_t size = x.itemsize();
  const auto step = static_cast<std::int64_t>(size);
  const auto n_cols = static_cast<std::int64_t>(x.shape(1));
  const std::int64_t down = x.stride(0) * step, across = x.stride(1) * step;
  return [=](std::int64_t first, std::int64_t n, std::byte* out) {
    const std::byte* from = data + first * down;
    if (across == step || n_cols <= 1) {
      for (std::int64_t i = 0; i < n; ++i)
        std::memcpy(out + i * n_cols * step, from + i * down, static_cast<std::size_t>(n_cols * step));
      return;
    }
    // A few rows of the source's columns share a cache line.
    for (std::int64_t i = 0; i < n; ++i) gather(from + i * down, across, n_cols, size, out + i * n_cols * step);
  };
}

/// Integers of 32 or 64 bits as T; DataError for one that is not in [0, limit].
template <class T>
io::FillRange integers(const Numbers& x, std::int64_t limit, const std::string& name) {
  const auto as = [&]<class Src>(Src) -> io::FillRange {
    const auto* data = static_cast<const Src*>(x.data());
    return [=](std::int64_t first, std::int64_t n, std::byte* bytes) {
      auto* out = reinterpret_cast<T*>(bytes);
      bool ok = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const Src v = data[first + i];
        ok &= v >= 0 && static_cast<std::int64_t>(v) <= limit;
        out[i] = static_cast<T>(v);
      }
      if (!ok) throw DataError("write_h5ad: '" + name + "' holds an index out of range");
    };
  };
  return x.itemsize() == 4 ? as(std::int32_t{}) : as(std::int64_t{});
}

/// (layout, n_rows, n_cols, dtype, values[, indices, indptr]) as scwarp.io makes it.
MatrixElement streamed(const std::string& name, const nb::tuple& t) {
  auto m = std::make_shared<io::MatrixStream>();
  const auto layout = nb::cast<std::string>(t[0]);
  m->n_rows = nb::cast<std::int64_t>(t[1]);
  m->n_cols = nb::cast<std::int64_t>(t[2]);
  m->dtype = nb::cast<std::string>(t[3]);
  const auto values = nb::cast<Numbers>(t[4]);
  if (layout == "dense") {
    m->layout = StoredLayout::dense;
    m->values = rows(values);
  } else {
    m->layout = layout == "csc" ? StoredLayout::csc : StoredLayout::csr;
    const auto indices = nb::cast<Numbers>(t[5]), indptr = nb::cast<Numbers>(t[6]);
    const std::int64_t n_major = m->layout == StoredLayout::csc ? m->n_cols : m->n_rows;
    const std::int64_t n_minor = m->layout == StoredLayout::csc ? m->n_rows : m->n_cols;
    const auto last = static_cast<std::size_t>(n_major);
    m->nnz = indptr.itemsize() == 4 ? static_cast<const std::int32_t*>(indptr.data())[last]
                                    : static_cast<const std::int64_t*>(indptr.data())[last];
    if (indptr.size() != last + 1 || m->nnz < 0 || static_cast<std::size_t>(m->nnz) > values.size() ||
        static_cast<std::size_t>(m->nnz) > indices.size())
      throw DataError("write_h5ad: '" + name + "' is not a consistent sparse matrix");
    m->values = elements(values);
    m->indices = integers<std::int32_t>(indices, n_minor - 1, name);
    m->indptr = integers<std::int64_t>(indptr, m->nnz, name);
  }
  return MatrixElement(std::shared_ptr<const io::MatrixStream>(std::move(m)));
}

/// Puts a matrix into its place, "X", "raw/X", "layers/counts", "obsp/distances", over what is there.
void put(AnnData& data, const std::string& name, MatrixElement m) {
  const auto slash = name.find('/');
  const std::string slot = name.substr(0, slash);
  if (name == "X") {
    data.X = std::move(m);
  } else if (name == "raw/X") {
    if (data.raw) data.raw->X = std::move(m);
  } else {
    AxisElements& all = slot == "layers" ? data.layers
                        : slot == "obsm" ? data.obsm
                        : slot == "varm" ? data.varm
                        : slot == "obsp" ? data.obsp
                                         : data.varp;
    all.insert_or_assign(name.substr(slash + 1), std::move(m));
  }
}

/// The masks' memory belongs to their arrays.
io::ReadH5adOptions read_options(bool check_counts, nb::handle obs_mask, nb::handle var_mask) {
  io::ReadH5adOptions options;
  options.check_counts = check_counts;
  if (!obs_mask.is_none()) options.obs_mask = host_vector_arg<std::uint8_t>(obs_mask, "obs_mask");
  if (!var_mask.is_none()) options.var_mask = host_vector_arg<std::uint8_t>(var_mask, "var_mask");
  return options;
}

}  // namespace

SCW_PYTHON(io, h5ad) {
  m.def(
      "read_h5ad_matrix",
      [](PyContext& py, const std::string& path, const std::string& element, bool check_counts, nb::handle obs_mask,
         nb::handle var_mask) {
        const auto options = read_options(check_counts, obs_mask, var_mask);
        return to_python(
            run(py, [&](const Context& ctx) { return io::read_h5ad_matrix(ctx, path, element, options); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("element") = "X", nb::arg("check_counts") = false,
      nb::arg("obs_mask") = nb::none(), nb::arg("var_mask") = nb::none());
  m.def(
      "copy_h5ad",
      [](PyContext& py, const std::string& from, const std::string& to, int compression_level, bool check_counts) {
        io::WriteH5adOptions write;
        write.compression_level = compression_level;
        run(py, [&](const Context& ctx) {
          io::ReadH5adOptions read;
          read.check_counts = check_counts;
          io::write_h5ad(ctx, io::read_h5ad(ctx, from, read), to, write);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("target"), nb::arg("compression_level") = -1,
      nb::arg("check_counts") = false);
  // `image`: an h5ad file in memory with everything but the matrices.
  m.def(
      "write_h5ad",
      [](PyContext& py, nb::bytes image, const std::string& to,
         const std::vector<std::pair<std::string, nb::tuple>>& matrices, const std::string& compression,
         int compression_level, std::int64_t chunk_bytes) {
        std::vector<std::pair<std::string, MatrixElement>> streams;
        for (const auto& [name, parts] : matrices) streams.emplace_back(name, streamed(name, parts));
        io::WriteH5adOptions write;
        write.compression = compression == "zstd"   ? io::Compression::zstd
                            : compression == "gzip" ? io::Compression::gzip
                                                    : io::Compression::none;
        write.compression_level = compression_level;
        write.chunk_bytes = chunk_bytes;
        const Span<const std::byte> bytes{static_cast<const std::byte*>(image.data()),
                                          static_cast<std::int64_t>(image.size())};
        run(py, [&](const Context& ctx) {
          AnnData data = io::read_h5ad(ctx, bytes, to);
          for (auto& [name, x] : streams) put(data, name, std::move(x));
          io::write_h5ad(ctx, data, to, write);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("image"), nb::arg("target"), nb::arg("matrices"), nb::arg("compression") = "gzip",
      nb::arg("compression_level") = -1, nb::arg("chunk_bytes") = io::WriteH5adOptions().chunk_bytes);
}

SCW_PYTHON(io, zarr) {
  m.def(
      "read_zarr_matrix",
      [](PyContext& py, const std::string& path, const std::string& element, bool check_counts, nb::handle obs_mask,
         nb::handle var_mask) {
        const auto options = read_options(check_counts, obs_mask, var_mask);
        return to_python(
            run(py, [&](const Context& ctx) { return io::read_zarr_matrix(ctx, path, element, options); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("element") = "X", nb::arg("check_counts") = false,
      nb::arg("obs_mask") = nb::none(), nb::arg("var_mask") = nb::none());
  m.def("is_zarr", &io::is_zarr, nb::arg("path"));
  const auto options = [](int format, const std::string& compression, int level, bool shards) {
    io::WriteZarrOptions o;
    o.format = format;
    o.codec = compression == "lz4"          ? io::ZarrCodec::blosc_lz4
              : compression == "blosc-zstd" ? io::ZarrCodec::blosc_zstd
              : compression == "zstd"       ? io::ZarrCodec::zstd
              : compression == "gzip"       ? io::ZarrCodec::gzip
                                            : io::ZarrCodec::none;
    o.level = level;
    o.shards = shards;
    return o;
  };
  // `image`: an h5ad file in memory with everything but the matrices.
  m.def(
      "write_zarr",
      [options](PyContext& py, nb::bytes image, const std::string& to,
                const std::vector<std::pair<std::string, nb::tuple>>& matrices, int format,
                const std::string& compression, int compression_level, bool shards) {
        std::vector<std::pair<std::string, MatrixElement>> streams;
        for (const auto& [name, parts] : matrices) streams.emplace_back(name, streamed(name, parts));
        const auto write = options(format, compression, compression_level, shards);
        const Span<const std::byte> bytes{static_cast<const std::byte*>(image.data()),
                                          static_cast<std::int64_t>(image.size())};
        run(py, [&](const Context& ctx) {
          AnnData data = io::read_h5ad(ctx, bytes, to);
          for (auto& [name, x] : streams) put(data, name, std::move(x));
          io::write_zarr(ctx, data, to, write);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("image"), nb::arg("target"), nb::arg("matrices"), nb::arg("format"),
      nb::arg("compression"), nb::arg("compression_level"), nb::arg("shards"));
  // A whole file into another one of any format, decoded and encoded again: for tests of both.
  m.def(
      "copy_file",
      [options](PyContext& py, const std::string& from, const std::string& to, int format,
                const std::string& compression, int compression_level, bool shards) {
        run(py, [&](const Context& ctx) {
          const AnnData data = io::is_zarr(from) ? io::read_zarr(ctx, from) : io::read_h5ad(ctx, from);
          if (format == 0)
            io::write_h5ad(ctx, data, to);
          else
            io::write_zarr(ctx, data, to, options(format, compression, compression_level, shards));
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("target"), nb::arg("format") = 2, nb::arg("compression") = "lz4",
      nb::arg("compression_level") = -1, nb::arg("shards") = false);
}

}  // namespace scw::python
