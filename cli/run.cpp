#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "app.hpp"
#include "console.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/io/inspect.hpp"
#include "scwarp/io/write.hpp"
#include "scwarp/pipeline/pipeline.hpp"
#include "scwarp/version.hpp"
#include "session.hpp"

namespace scw::cli {

namespace {

class Observer final : public pipeline::StepObserver {
 public:
  explicit Observer(Console& console) : console_(console) {}
  void started(const std::string& name) override { console_.start_step(name); }
  void finished(const pipeline::ReportStep& s) override {
    console_.end_step(s.name, s.seconds, s.peak_bytes, s.summary);
  }

 private:
  Console& console_;
};

/// From the headers of an h5ad file or Zarr store; other formats have to be read.
pipeline::Shape input_shape(const Context& ctx, const Arguments& a, std::string& name) {
  pipeline::Shape shape;
  if (io::is_zarr(a.input) ||
      (std::filesystem::path(a.input).extension() == ".h5ad" && std::filesystem::is_regular_file(a.input))) {
    for (const auto& e : io::inspect(a.input)) {
      if (e.path != "/X" || e.shape.size() != 2) continue;
      name = std::filesystem::path(a.input).filename().string();
      shape.n_obs = e.shape[0];
      shape.n_vars = e.shape[1];
      shape.sparse = e.nnz >= 0;
      shape.nnz = shape.sparse ? e.nnz : shape.n_obs * shape.n_vars;
      shape.value_bytes = e.dtype == "float64" ? 8 : 4;
      return shape;
    }
  }
  return pipeline::shape_of(read_input(ctx.host(), a, name));
}

int print_plan(const Context& ctx, const Arguments& a, Console& console) {
  std::string name;
  pipeline::Shape shape;
  if (a.input.empty()) {
    shape = {a.simulate.n_cells, a.simulate.n_genes,
             a.simulate.n_cells * static_cast<std::int64_t>(a.simulate.mean_counts / 2), 4, true};
    name = "Simulated data";
  } else {
    shape = input_shape(ctx, a, name);
  }
  console.line(fmt::format("{}: {} cells x {} genes, {} values, {}", name, format_count(shape.n_obs),
                           format_count(shape.n_vars), format_count(shape.nnz), format_bytes(shape.matrix_bytes())));
  shape.device = ctx.device.type;
  const bool on_cpu = ctx.device == Device{};
  if (!on_cpu) shape.limit_bytes = available_bytes(ctx);
  if (!on_cpu) console.line(fmt::format("Memory of {}, where every step after reading works", to_string(ctx.device)));
  console.line("");
  console.line(fmt::format("{:<16} {:>12} {:>12}", "step", "held before", "peak"));
  std::int64_t peak = 0;
  const auto steps = pipeline::plan(a.run, shape, on_cpu ? ctx.n_threads : 1);
  for (const auto& s : steps) {
    console.line(fmt::format("{:<16} {:>12} {:>12}", s.name, format_bytes(s.held_bytes), format_bytes(s.peak_bytes)));
    console.event("plan", {{"step", s.name}, {"held_bytes", s.held_bytes}, {"peak_bytes", s.peak_bytes}});
    peak = std::max(peak, s.peak_bytes);
  }
  console.line(fmt::format("{:<16} {:>12} {:>12}", "largest", "", format_bytes(peak)));
  const bool streamed = !on_cpu && steps.size() > 1 && steps[1].held_bytes == 0;
  if (streamed) console.line("X does not fit beside the steps: it stays on the host and is streamed.");
  const bool fits = a.memory_limit.empty() || static_cast<std::uint64_t>(peak) <= parse_bytes(a.memory_limit);
  if (!fits) console.line(fmt::format("This is more than the limit of {}.", a.memory_limit));
  console.event("result", {{"peak_bytes", peak}, {"fits", fits}, {"streamed", streamed}});
  return kOk;
}

/// The counts are not in the result, so that it must not take their place, asked for or not.
void expect_apart(const Arguments& a) {
  for (const auto* out : {&a.output, &a.report})
    if (!out->empty() && !a.input.empty() && same_place(a.input, *out))
      throw InvalidArgument(fmt::format("run: '{}' is the input itself: give the output another name", *out));
  if (!a.output.empty() && !a.report.empty() && same_place(a.output, a.report))
    throw InvalidArgument(fmt::format("run: the output and the report are one file, '{}'", a.report));
}

}  // namespace

int run_command(const Arguments& a) {
  const Stopwatch watch;
  Console console(a);
  pipeline::check_options(a.run);
  if (!a.plan && a.output.empty() && a.report.empty())
    throw InvalidArgument("run: give -o OUT.h5ad, or -o OUT.zarr, or --report OUT.html, or --plan");
  io::WriteOptions how;
  if (!a.output.empty()) {
    const auto format = io::format_of("run", a.output);
    if (format == io::FileFormat::tenx_mtx || format == io::FileFormat::tenx_h5)
      throw InvalidArgument(fmt::format("run: {} has no place for results: give -o OUT.h5ad or -o OUT.zarr",
                                        format == io::FileFormat::tenx_mtx ? "a 10x folder" : "10x HDF5"));
  }
  if (!a.output.empty()) how = io::write_options("run", a.output, a.run.compression, -1, 0, a.zarr_format, a.shards);
  const Context ctx = make_context(a, console, a.run.seed);
  if (a.plan) return print_plan(ctx, a, console);
  expect_apart(a);
  if (!a.output.empty()) check_output("run", a.output, a.force, io::format_of("run", a.output));
  if (!a.report.empty()) {
    check_output("run", a.report, a.force);
    if (pipeline::plotly_version().empty())
      throw NotSupported("run: this build writes no reports: it was made without Plotly.js");
  }

  pipeline::ReportData report;
  std::vector<pipeline::ReportStep> steps;
  AnnData data;
  steps.push_back(timed_step(console, a.input.empty() ? "simulate" : "read", [&] {
    data = read_input(ctx.host(), a, report.title);
    const auto shape = pipeline::shape_of(data);
    return fmt::format("{} cells x {} genes, {} values", format_count(shape.n_obs), format_count(shape.n_vars),
                       format_count(shape.nnz));
  }));
  pipeline::check_data(a.run, data);
  Observer observer(console);
  const auto job = pipeline::main_job(a.run, a.report.empty() ? nullptr : &report);
  for (auto& s : pipeline::run_steps(ctx, data, job, &observer)) steps.push_back(std::move(s));
  if (!a.output.empty()) {
    steps.push_back(timed_step(console, "write", [&] {
      io::write(ctx.host(), data, a.output, how);
      return a.output;
    }));
  }
  if (!a.report.empty()) {
    steps.push_back(timed_step(console, "report", [&] {
      pipeline::collect_report(ctx.host(), data, a.run, report);
      report.subtitle =
          fmt::format("Analysed with scwarp {} on {:%d %B %Y, %H:%M} UTC", kVersion, fmt::gmtime(std::time(nullptr)));
      report.facts.emplace_back("time", format_seconds(watch.seconds()));
      report.steps = steps;
      report.parameters.emplace_back("threads", std::to_string(ctx.n_threads));
      report.versions = {
          {"scwarp", kVersion}, {"Plotly.js", pipeline::plotly_version()}, {"device", to_string(ctx.device)}};
      pipeline::write_report(ctx.host(), report, a.report);
      return a.report;
    }));
  }
  const double seconds = watch.seconds();
  print_table(console, steps, seconds);
  console.event("result", {{"cells", data.n_obs()},
                           {"genes", data.n_vars()},
                           {"seconds", seconds},
                           {"peak_resident_bytes", peak_resident_bytes()},
                           {"output", a.output},
                           {"report", a.report}});
  return kOk;
}

int simulate_command(const Arguments& a) {
  const Stopwatch watch;
  Console console(a);
  Arguments own = a;
  own.device = "cpu";
  const Context ctx = make_context(own, console, a.simulate_seed);
  check_output("simulate", a.output, a.force, io::format_of("simulate", a.output));
  std::vector<pipeline::ReportStep> steps;
  AnnData data;
  steps.push_back(timed_step(console, "simulate", [&] {
    data = pipeline::simulated_anndata(ctx, a.simulate);
    const auto shape = pipeline::shape_of(data);
    return fmt::format("{} cells x {} genes, {} values", format_count(shape.n_obs), format_count(shape.n_vars),
                       format_count(shape.nnz));
  }));
  steps.push_back(timed_step(console, "write", [&] {
    io::write(ctx, data, a.output);
    return a.output;
  }));
  print_table(console, steps, watch.seconds());
  return kOk;
}

}  // namespace scw::cli
