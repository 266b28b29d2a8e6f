// What the commands share: the context that the arguments ask for, timed steps, input of any kind.
#pragma once

#include <string>
#include <vector>

#include "app.hpp"
#include "console.hpp"
#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/io/write.hpp"
#include "scwarp/pipeline/report.hpp"

namespace scw::cli {

/// Sets the memory limit, finds the device (throws BackendUnavailable), connects cancellation, progress and log.
Context make_context(const Arguments& arguments, Console& console, std::uint64_t seed);

/// FormatError, a bad input, unless there is a file that may be read, a Zarr store, or a folder with matrix.mtx.
void expect_input(const std::string& path);

/// Reads any supported file, or simulates if `input` is empty; `name` is a title for people.
AnnData read_input(const Context& ctx, const Arguments& arguments, std::string& name);

/// Throws IoError unless a file (or folder, if the format is one) can be made there, and InvalidArgument if something
/// is there and `force` is not given; marks it for removal of leftovers on interruption.
void check_output(const char* op, const std::string& path, bool force, io::FileFormat format = io::FileFormat::h5ad);

/// Whether both names lead to one file or folder, through links or not; it need not be there.
bool same_place(const std::string& a, const std::string& b);

/// Of a file, or of all files below a folder; 0 if it is not there.
std::int64_t stored_bytes(const std::string& path);

/// Runs body(), which returns a line on what it did, as a step.
template <class Body>
pipeline::ReportStep timed_step(Console& console, const std::string& name, Body&& body);

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

template <class Body>
pipeline::ReportStep timed_step(Console& console, const std::string& name, Body&& body) {
  console.start_step(name);
  host_memory()->reset_peak();
  const Stopwatch watch;
  pipeline::ReportStep step;
  step.name = name;
  step.summary = body();
  step.seconds = watch.seconds();
  step.peak_bytes = static_cast<std::int64_t>(host_memory()->peak_bytes());
  console.end_step(step.name, step.seconds, step.peak_bytes, step.summary);
  return step;
}

/// Step, seconds, peak memory, what it did.
void print_table(Console& console, const std::vector<pipeline::ReportStep>& steps, double total_seconds);

}  // namespace scw::cli
