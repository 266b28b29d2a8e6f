#include <CLI/CLI.hpp>

#include "scwarp/version.hpp"

int main(int argc, char** argv) {
  CLI::App app{"scwarp: single-cell analysis, file in, annotated file and report out"};
  app.set_version_flag("--version", scw::kVersion);
  app.require_subcommand(1);
  CLI11_PARSE(app, argc, argv);
  return 0;
}
