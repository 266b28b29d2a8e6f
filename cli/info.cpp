#include <fmt/format.h>

#include <filesystem>

#include "app.hpp"
#include "console.hpp"
#include "scwarp/core/error.hpp"
#include "scwarp/io/inspect.hpp"
#include "scwarp/pipeline/pipeline.hpp"
#include "session.hpp"

namespace scw::cli {

int info_command(const Arguments& a) {
  std::error_code error;
  if (!std::filesystem::exists(a.input, error))
    throw FormatError(fmt::format("info: {}: there is no such file", a.input));
  const auto entries = io::inspect(a.input);
  const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(a.input, error));
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
