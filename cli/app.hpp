// The arguments of the program and its option tree.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scwarp/datasets/simulate.hpp"
#include "scwarp/io/concat.hpp"
#include "scwarp/pipeline/options.hpp"

namespace scw::cli {

// Documented in docs/cli.md and `scwarp --help`.
enum ExitCode : int {
  kOk = 0,
  kError = 1,
  kUsage = 2,
  kBadInput = 3,
  kOutOfMemory = 4,
  kNoDevice = 5,
  kInterrupted = 130,  // SIGINT; SIGTERM gives 143
};

struct Arguments {
  // Where and how: shared by the commands that compute.
  std::string device = "auto";
  int threads = 0;
  std::string memory_limit;
  bool json = false, quiet = false, verbose = false;

  std::string input, output, report;
  bool plan = false, write_config = false;
  pipeline::RunOptions run;

  datasets::SimulateOptions simulate;
  std::uint64_t simulate_seed = 0;

  std::vector<std::string> inputs;
  io::ConcatOptions concat;
  std::string join = "inner", merge = "none", uns_merge = "none", compression = "auto", chunk, rows = "auto";
  int level = -1, zarr_format = 0;
  bool shards = false, force = false, csr = false;

  std::string shell;
};

/// Choices of an option, for the shells to complete.
using Choices = std::map<const CLI::Option*, std::vector<std::string>>;

/// Fills `app`; the pointers of the options go to `arguments`, which must outlive the app.
void build_app(CLI::App& app, Arguments& arguments, Choices& choices);

/// The effective options of a command as TOML that --config reads.
std::string config_text(const CLI::App& app);

/// "8GB" -> 8e9, "512MiB" -> 512 * 2^20; throws CLI::ValidationError.
std::uint64_t parse_bytes(const std::string& text);

// The commands; they return an exit code.
int run_command(const Arguments& arguments);
int info_command(const Arguments& arguments);
int simulate_command(const Arguments& arguments);
int convert_command(const Arguments& arguments);
int concat_command(const Arguments& arguments);
int doctor_command(const Arguments& arguments);
/// The script for `shell`: bash, zsh or fish.
std::string completion_script(const CLI::App& app, const Choices& choices, const std::string& shell);

}  // namespace scw::cli
