#include "scwarp/io/convert.hpp"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "app.hpp"
#include "console.hpp"
#include "interrupt.hpp"
#include "session.hpp"

namespace scw::cli {

namespace {

io::Merge merge_of(const std::string& name) {
  if (name == "same") return io::Merge::same;
  if (name == "unique") return io::Merge::unique;
  if (name == "first") return io::Merge::first;
  if (name == "only") return io::Merge::only;
  return io::Merge::none;
}

/// The options that both commands have, where concat keeps them.
io::ConcatOptions options_of(const char* op, const Arguments& a) {
  io::ConcatOptions o = a.concat;
  const std::int64_t chunk = a.chunk.empty() ? 0 : static_cast<std::int64_t>(parse_bytes(a.chunk));
  o.write = io::write_options(op, a.output, a.compression, a.level, chunk, a.zarr_format, a.shards);
  o.overwrite = a.force;
  o.join = a.join == "outer" ? io::Join::outer : io::Join::inner;
  o.merge = merge_of(a.merge);
  o.uns_merge = merge_of(a.uns_merge);
  if (a.rows == "cells") o.read.orientation = io::Orientation::rows_are_cells;
  if (a.rows == "genes") o.read.orientation = io::Orientation::rows_are_genes;
  return o;
}

/// Runs the work on the host, and tells what came of it.
template <class F>
int write(const char* op, const Arguments& a, const std::vector<std::string>& inputs, F&& work) {
  Console console(a);
  const io::ConcatOptions options = options_of(op, a);
  for (const auto& path : inputs) expect_input(path);
  Arguments own = a;
  own.device = "cpu";
  const Context ctx = make_context(own, console, 0);
  const auto start = std::chrono::steady_clock::now();
  Interrupt::watch_output(a.output);
  work(ctx, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const std::int64_t bytes = stored_bytes(a.output);
  console.line(fmt::format("{}: {} in {}, {} of memory", a.output, format_bytes(bytes), format_seconds(seconds),
                           format_bytes(peak_resident_bytes())));
  console.event(
      "result",
      {{"output", a.output}, {"bytes", bytes}, {"seconds", seconds}, {"peak_resident_bytes", peak_resident_bytes()}});
  return kOk;
}

}  // namespace

int convert_command(const Arguments& a) {
  return write("convert", a, {a.input}, [&](const Context& ctx, const io::ConcatOptions& o) {
    io::convert(ctx, a.input, a.output, {o.read, o.write, o.overwrite, a.csr});
  });
}

int concat_command(const Arguments& a) {
  return write("concat", a, a.inputs,
               [&](const Context& ctx, const io::ConcatOptions& o) { io::concat(ctx, a.inputs, a.output, o); });
}

}  // namespace scw::cli
