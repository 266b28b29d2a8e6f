#include "scwarp/io/convert.hpp"

#include "bind.hpp"
#include "scwarp/io/concat.hpp"

namespace scw::python {
namespace {

io::Merge merge_of(const std::string& name) {
  if (name == "same") return io::Merge::same;
  if (name == "unique") return io::Merge::unique;
  if (name == "first") return io::Merge::first;
  if (name == "only") return io::Merge::only;
  return io::Merge::none;
}

}  // namespace

SCW_PYTHON(io, convert) {
  m.def(
      "convert",
      [](PyContext& py, const std::string& in, const std::string& out, const std::string& genome, bool gex_only,
         bool overwrite, bool csr, const std::string& compression, int level, std::int64_t chunk_bytes, int zarr_format,
         bool shards) {
        io::ConvertOptions o;
        o.csr = csr;
        o.read.genome = genome;
        o.read.gex_only = gex_only;
        o.write = io::write_options("convert", out, compression, level, chunk_bytes, zarr_format, shards);
        o.overwrite = overwrite;
        run(py, [&](const Context& ctx) { io::convert(ctx, in, out, o); });
      },
      nb::arg("ctx"), nb::arg("source"), nb::arg("target"), nb::arg("genome"), nb::arg("gex_only"),
      nb::arg("overwrite"), nb::arg("csr"), nb::arg("compression"), nb::arg("compression_level"),
      nb::arg("chunk_bytes"), nb::arg("zarr_format"), nb::arg("shards"));
  m.def(
      "concat",
      [](PyContext& py, const std::vector<std::string>& inputs, const std::string& out, bool outer,
         const std::string& label, const std::vector<std::string>& keys, const std::optional<std::string>& index_unique,
         const std::string& merge, const std::string& uns_merge, std::optional<double> fill_value, bool overwrite,
         const std::string& compression, int level, std::int64_t chunk_bytes, int zarr_format, bool shards) {
        io::ConcatOptions o;
        o.join = outer ? io::Join::outer : io::Join::inner;
        o.label = label;
        o.keys = keys;
        o.index_unique = index_unique;
        o.merge = merge_of(merge);
        o.uns_merge = merge_of(uns_merge);
        o.fill_value = fill_value;
        o.write = io::write_options("concat", out, compression, level, chunk_bytes, zarr_format, shards);
        o.overwrite = overwrite;
        run(py, [&](const Context& ctx) { io::concat(ctx, inputs, out, o); });
      },
      nb::arg("ctx"), nb::arg("inputs"), nb::arg("target"), nb::arg("outer"), nb::arg("label"), nb::arg("keys"),
      nb::arg("index_unique").none(), nb::arg("merge"), nb::arg("uns_merge"), nb::arg("fill_value").none(),
      nb::arg("overwrite"), nb::arg("compression"), nb::arg("compression_level"), nb::arg("chunk_bytes"),
      nb::arg("zarr_format"), nb::arg("shards"));
}

}  // namespace scw::python
