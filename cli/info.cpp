#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <string_view>
#include <vector>

#include "app.hpp"
#include "console.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/io/inspect.hpp"
#include "scwarp/io/read.hpp"
#include "scwarp/io/zarr.hpp"
#include "scwarp/pipeline/pipeline.hpp"
#include "session.hpp"

namespace scw::cli {

namespace {

/// The signature of HDF5 is at byte 0, or at 512, 1024, ... behind a user block.
bool is_hdf5(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char text[8] = {};
  for (std::streamoff at = 0; file.seekg(at) && file.read(text, 8); at = at == 0 ? 512 : 2 * at)
    if (std::string_view(text, 8) == "\x89HDF\r\n\x1a\n") return true;
  return false;
}

}  // namespace

int info_command(const Arguments& a) {
  expect_input(a.input);
  std::error_code error;
  std::vector<io::FileEntry> entries;
  if (std::filesystem::is_directory(a.input, error) || is_hdf5(a.input)) {
    entries = io::inspect(a.input);
  } else {  // tables have no headers: they are read
    const auto shape = pipeline::shape_of(io::read(Context::cpu(), a.input));
    entries.push_back({"X", "table", {shape.n_obs, shape.n_vars}, "", shape.nnz, -1, stored_bytes(a.input)});
  }
  const std::int64_t bytes = stored_bytes(a.input);
  if (a.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& e : entries) {
      nlohmann::json j = {{"path", e.path}, {"kind", e.kind}, {"shape", e.shape}, {"stored_bytes", e.stored_bytes}};
      if (!e.dtype.empty()) j["dtype"] = e.dtype;
      if (e.nnz >= 0) j["nnz"] = e.nnz;
      if (e.n_categories >= 0) j["n_categories"] = e.n_categories;
      list.push_back(std::move(j));
    }
    fmt::print("{}\n", nlohmann::json{{"file", a.input}, {"bytes", bytes}, {"elements", list}}.dump(2));
    return kOk;
  }
  fmt::print("{}, {}\n\n", a.input, format_bytes(bytes));
  fmt::print("{:<42} {:<14} {:<20} {:<10} {:>10}\n", "element", "kind", "shape", "type", "stored");
  for (const auto& e : entries) {
    std::string shape;
    for (const auto d : e.shape) shape += (shape.empty() ? "" : " x ") + format_count(d);
    std::string more;
    if (e.nnz >= 0) {
      const double all = e.shape.size() == 2 ? static_cast<double>(e.shape[0]) * static_cast<double>(e.shape[1]) : 0;
      more = fmt::format("  {} values", format_count(e.nnz)) +
             (all > 0 ? fmt::format(" ({:.2f} %)", 100 * static_cast<double>(e.nnz) / all) : "");
    }
    if (e.n_categories >= 0) more = fmt::format("  {} categories", format_count(e.n_categories));
    fmt::print("{:<42} {:<14} {:<20} {:<10} {:>10}{}\n", e.path, e.kind, shape, e.dtype, format_bytes(e.stored_bytes),
               more);
  }
  return kOk;
}

}  // namespace scw::cli
