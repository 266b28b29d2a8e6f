#include "scwarp/io/tenx.hpp"
#include "scwarp/io/text.hpp"

#include "bind.hpp"
#include "io/from_python.hpp"
#include "io/to_python.hpp"

namespace scw::python {
namespace {

/// [(column, texts or booleans)]
nb::list columns(const DataFrame& frame) {
  nb::list out;
  for (const auto& [name, column] : frame.columns()) {
    if (const auto* flags = std::get_if<Bools>(&column.data))
      out.append(nb::make_tuple(name, std::vector<bool>(flags->values.begin(), flags->values.end())));
    else
      out.append(nb::make_tuple(name, column.to_strings()));
  }
  return out;
}

/// (matrix, obs names, var names, columns of obs, columns of var)
nb::tuple parts(AnnData&& a) {
  return nb::make_tuple(to_python(std::move(*a.X)), a.obs.index(), a.var.index(), columns(a.obs), columns(a.var));
}

/// X to where ctx is.
AnnData on_device(const Context& ctx, AnnData a) {
  if (ctx.device.type != DeviceType::cpu) a.to_device(ctx);
  return a;
}

}  // namespace

SCW_PYTHON(io, tables) {
  m.def(
      "read_10x_h5",
      [](PyContext& py, const std::string& path, const std::string& genome, bool gex_only, nb::handle obs_mask,
         nb::handle var_mask) {
        io::Read10xH5Options options{genome, gex_only};
        if (!obs_mask.is_none()) options.obs_mask = host_vector_arg<std::uint8_t>(obs_mask, "obs_mask");
        if (!var_mask.is_none()) options.var_mask = host_vector_arg<std::uint8_t>(var_mask, "var_mask");
        return parts(
            run(py, [&](const Context& ctx) { return on_device(ctx, io::read_10x_h5(ctx.host(), path, options)); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("genome"), nb::arg("gex_only"), nb::arg("obs_mask") = nb::none(),
      nb::arg("var_mask") = nb::none());
  m.def(
      "read_10x_mtx",
      [](PyContext& py, const std::string& folder, bool gene_symbols, bool gex_only, const std::string& prefix) {
        return parts(run(py, [&](const Context& ctx) {
          return on_device(ctx, io::read_10x_mtx(ctx.host(), folder, {gene_symbols, gex_only, prefix}));
        }));
      },
      nb::arg("ctx"), nb::arg("folder"), nb::arg("gene_symbols"), nb::arg("gex_only"), nb::arg("prefix"));
  // columns: those of var that such a folder has a place for.
  m.def(
      "write_10x_mtx",
      [](PyContext& py, const nb::tuple& x, std::vector<std::string> cells, std::vector<std::string> genes,
         const std::vector<std::pair<std::string, std::vector<std::string>>>& columns, const std::string& folder,
         int version, int compression_level) {
        AnnData a;
        a.obs = DataFrame(std::move(cells));
        a.var = DataFrame(std::move(genes));
        for (const auto& [name, values] : columns) a.var.set(name, values);
        a.X = streamed("X", x);
        run(py, [&](const Context& ctx) {
          io::write_10x_mtx(ctx, a, folder, {version, compression_level});
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("cells"), nb::arg("genes"), nb::arg("columns"), nb::arg("folder"),
      nb::arg("version"), nb::arg("compression_level"));
  // columns of text and of booleans of var; flags of obs.
  m.def(
      "write_10x_h5",
      [](PyContext& py, const nb::tuple& x, std::vector<std::string> cells, std::vector<std::string> genes,
         const std::vector<std::pair<std::string, std::vector<std::string>>>& texts,
         const std::vector<std::pair<std::string, std::vector<bool>>>& flags, const std::vector<bool>& filtered,
         const std::string& path, int compression_level, std::int64_t chunk_bytes) {
        const auto bools = [](const std::vector<bool>& v) { return Column(Bools{{v.begin(), v.end()}}); };
        AnnData a;
        a.obs = DataFrame(std::move(cells));
        a.var = DataFrame(std::move(genes));
        for (const auto& [name, values] : texts) a.var.set(name, values);
        for (const auto& [name, values] : flags) a.var.set(name, bools(values));
        if (!filtered.empty()) a.obs.set("filtered_barcodes", bools(filtered));
        a.X = streamed("X", x);
        io::Write10xH5Options options;
        options.compression_level = compression_level;
        if (chunk_bytes > 0) options.chunk_bytes = chunk_bytes;
        run(py, [&](const Context& ctx) {
          io::write_10x_h5(ctx, a, path, options);
          return 0;
        });
      },
      nb::arg("ctx"), nb::arg("x"), nb::arg("cells"), nb::arg("genes"), nb::arg("texts"), nb::arg("flags"),
      nb::arg("filtered"), nb::arg("path"), nb::arg("compression_level"), nb::arg("chunk_bytes"));
  m.def(
      "read_text",
      [](PyContext& py, const std::string& path, const std::string& delimiter, const std::string& rows) {
        io::ReadTextOptions options;
        if (!delimiter.empty()) options.delimiter = delimiter[0];
        if (rows == "cells") options.orientation = io::Orientation::rows_are_cells;
        if (rows == "genes") options.orientation = io::Orientation::rows_are_genes;
        return parts(run(py, [&](const Context& ctx) { return io::read_text(ctx, path, options); }));
      },
      nb::arg("ctx"), nb::arg("path"), nb::arg("delimiter"), nb::arg("rows"));
}

}  // namespace scw::python
