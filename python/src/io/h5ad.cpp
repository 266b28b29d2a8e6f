#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/zarr.hpp"

#include "bind.hpp"
#include "io/from_python.hpp"
#include "io/to_python.hpp"

namespace scw::python {
namespace {

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
  // A list: NumPy makes the array of it that h5py would give.
  m.def(
      "read_h5ad_texts",
      [](PyContext& py, const std::string& path, const std::string& element) {
        // By this thread alone: a matrix may be on its way meanwhile, and its loop needs the pool.
        const auto texts = run(py, [&](Context ctx) {
          ctx.n_threads = 1;
          return io::read_h5ad_texts(ctx, path, element);
        });
        const auto n = static_cast<Py_ssize_t>(texts.size());
        nb::list out = nb::steal<nb::list>(PyList_New(n));
        if (!out.is_valid()) throw nb::python_error();
        for (Py_ssize_t i = 0; i < n; ++i) {
          const std::string& text = texts[static_cast<std::size_t>(i)];
          PyObject* const made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "strict");
          if (made == nullptr) throw nb::python_error();
          PyList_SET_ITEM(out.ptr(), i, made);
        }
        return out;
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("element"));
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
