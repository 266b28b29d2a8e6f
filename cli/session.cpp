#include "session.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "interrupt.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/read.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::cli {

Context make_context(const Arguments& a, Console& console, std::uint64_t seed) {
  if (!a.memory_limit.empty()) host_memory()->set_limit_bytes(parse_bytes(a.memory_limit));
  Context ctx = Context::cpu(a.threads);
  ctx.cancelled = Interrupt::flag();
  ctx.progress = &console;
  ctx.log = &console;
  ctx.rng.seed = seed;
  if (a.device != "auto" && a.device != "cpu") {
    const Device device = parse_device(a.device);
    (void)Context::on(device, a.threads);  // throws with the reason
    std::string missing;
    int count = 0;
    for (const auto& kernel : registered_kernels())
      if (!kernel.on[static_cast<int>(device.type)] && ++count <= 3)
        missing += (missing.empty() ? "" : ", ") + kernel.name;
    if (count > 0)
      throw BackendUnavailable(fmt::format("run: {} operations have no implementation for {} ({}{}); use --device cpu",
                                           count, a.device, missing, count > 3 ? ", ..." : ""));
  }
  ctx.info(fmt::format("runs on cpu, {} threads", ctx.n_threads));
  return ctx;
}

AnnData read_input(const Context& ctx, const Arguments& a, std::string& name) {
  if (a.input.empty()) {
    name = "Simulated data";
    return pipeline::simulated_anndata(ctx, a.simulate);
  }
  std::error_code error;
  if (!std::filesystem::exists(a.input, error))
    throw FormatError(fmt::format("read: {}: there is no such file", a.input));
  name = std::filesystem::path(a.input).filename().string();
  if (std::filesystem::path(a.input).extension() == ".h5ad") {
    io::ReadH5adOptions options;
    options.check_counts = true;
    return io::read_h5ad(ctx, a.input, options);
  }
  return io::read(ctx, a.input);
}

void check_output(const std::string& path) {
  const std::filesystem::path target(path);
  const auto folder = target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
  std::error_code error;
  if (std::filesystem::is_directory(target, error)) throw IoError(fmt::format("write: {} is a folder", path));
  if (!std::filesystem::is_directory(folder, error))
    throw IoError(fmt::format("write: {}: there is no folder {}", path, folder.string()));
  if (::access(folder.c_str(), W_OK) != 0)
    throw IoError(fmt::format("write: {}: cannot write in {} ({})", path, folder.string(), std::strerror(errno)));
  Interrupt::watch_output(path);
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
