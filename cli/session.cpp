#include "session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "interrupt.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/read.hpp"
#include "scwarp/io/zarr.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::cli {

namespace {

/// The device that --device asks for. auto: a CUDA device that has all the kernels of the job, else the CPU.
Device choose_device(const Arguments& a, Console& console) {
  if (a.device == "cpu") return {};
  const bool any = a.device == "auto";
  const Device device = any ? Device{DeviceType::cuda, 0} : parse_device(a.device);
  if (any && !unavailable_reason(device.type).empty()) return {};
  (void)Context::on(device, a.threads);  // throws with the reason
  const auto missing = pipeline::missing_operations(a.run, device.type);
  if (missing.empty()) return device;
  std::string names;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, missing.size()); ++i)
    names += (names.empty() ? "" : ", ") + missing[i];
  const std::string what = fmt::format("{} operations have no implementation for {} ({}{})", missing.size(),
                                       to_string(device), names, missing.size() > 3 ? ", ..." : "");
  if (!any) throw BackendUnavailable(fmt::format("run: {}; use --device cpu", what));
  console.log(LogLevel::info, what);
  return {};
}

}  // namespace

Context make_context(const Arguments& a, Console& console, std::uint64_t seed) {
  Context ctx = Context::on(choose_device(a, console), a.threads);
  ctx.cancelled = Interrupt::flag();
  ctx.progress = &console;
  ctx.log = &console;
  ctx.rng.seed = seed;
  if (!a.memory_limit.empty()) {
    // A device holds the data while the steps run: the limit is its.
    if (auto* memory = dynamic_cast<TrackedMemory*>(ctx.memory.get()); memory != nullptr)
      memory->set_limit_bytes(parse_bytes(a.memory_limit));
  }
  ctx.info(fmt::format("runs on {}, {} threads", to_string(ctx.device), ctx.n_threads));
  return ctx;
}

void expect_input(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::exists(path, error)) throw FormatError(fmt::format("read: {}: there is no such file", path));
  if (::access(path.c_str(), R_OK) != 0)
    throw FormatError(fmt::format("read: {}: cannot be read ({})", path, std::strerror(errno)));
  if (!fs::is_directory(path, error) || io::is_zarr(path)) return;
  for (const auto& entry : fs::directory_iterator(path, error))
    if (const auto file = entry.path().filename().string(); file == "matrix.mtx" || file == "matrix.mtx.gz") return;
  throw FormatError(fmt::format("read: {}: a folder that is neither a Zarr store nor has a matrix.mtx", path));
}

AnnData read_input(const Context& ctx, const Arguments& a, std::string& name) {
  if (a.input.empty()) {
    name = "Simulated data";
    return pipeline::simulated_anndata(ctx, a.simulate);
  }
  expect_input(a.input);
  name = std::filesystem::path(a.input).filename().string();
  if (std::filesystem::path(a.input).extension() == ".h5ad") {
    io::ReadH5adOptions options;
    options.check_counts = true;
    return io::read_h5ad(ctx, a.input, options);
  }
  if (io::is_zarr(a.input)) {
    io::ReadZarrOptions options;
    options.check_counts = true;
    return io::read_zarr(ctx, a.input, options);
  }
  return io::read(ctx, a.input);
}

bool same_place(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code none;
  if (fs::equivalent(a, b, none)) return true;
  const auto plain = [&](const std::string& path) {
    const fs::path full = fs::weakly_canonical(fs::absolute(path, none), none);
    return full.has_filename() ? full : full.parent_path();
  };
  return plain(a) == plain(b);
}

void check_output(const char* op, const std::string& path, bool force, io::FileFormat format) {
  std::filesystem::path target(path);
  if (!target.has_filename()) target = target.parent_path();
  std::error_code error;
  const bool is_store = io::is_zarr(path) || std::filesystem::is_empty(target, error);
  const bool as_zarr = format == io::FileFormat::zarr;
  if (std::filesystem::is_directory(target, error) && format != io::FileFormat::tenx_mtx && !(as_zarr && is_store))
    throw IoError(fmt::format("write: {} is a folder{}", path, as_zarr ? " that is no Zarr store" : ""));
  if (!force && std::filesystem::exists(target, error))
    throw InvalidArgument(fmt::format("{}: '{}' is there already (overwrite it with --force)", op, path));
  io::expect_place(op, path, as_zarr || format == io::FileFormat::tenx_mtx);
  Interrupt::watch_output(path);
}

std::int64_t stored_bytes(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code none;
  if (!fs::is_directory(path, none)) {
    const auto size = fs::file_size(path, none);
    return none ? 0 : static_cast<std::int64_t>(size);
  }
  std::int64_t sum = 0;
  for (auto it = fs::recursive_directory_iterator(path, none); it != fs::recursive_directory_iterator();
       it.increment(none))
    if (std::error_code e; it->is_regular_file(e)) sum += static_cast<std::int64_t>(it->file_size(e));
  return sum;
}

void print_table(Console& console, const std::vector<pipeline::ReportStep>& steps, double total_seconds) {
  console.line("");
  console.line(fmt::format("{:<16} {:>9} {:>10}  {}", "step", "seconds", "memory", "what it did"));
  for (const auto& s : steps)
    console.line(fmt::format("{:<16} {:>9.2f} {:>10}  {}", s.name, s.seconds, format_bytes(s.peak_bytes), s.summary));
  console.line(fmt::format("{:<16} {:>9.2f} {:>10}  largest resident memory of the process", "total", total_seconds,
                           format_bytes(peak_resident_bytes())));
}

}  // namespace scw::cli
