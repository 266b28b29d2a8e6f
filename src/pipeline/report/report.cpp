#include "scwarp/pipeline/report.hpp"

#include <libdeflate.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/positioned.hpp"
#include "io/replace_file.hpp"
#include "pipeline/report/assets.hpp"

namespace scw::pipeline {

namespace {

using nlohmann::json;
constexpr const char* kOp = "report";

/// Bytes that go into the page as gzip, in base64.
struct Blob {
  std::string id;
  std::string bytes;
  std::string encoded;
};

std::string gzip_base64(const std::string& bytes) {
  const std::unique_ptr<libdeflate_compressor, void (*)(libdeflate_compressor*)> gzip(libdeflate_alloc_compressor(6),
                                                                                      libdeflate_free_compressor);
  SCW_ASSERT(gzip != nullptr);
  std::string packed(libdeflate_gzip_compress_bound(gzip.get(), bytes.size()), '\0');
  packed.resize(libdeflate_gzip_compress(gzip.get(), bytes.data(), bytes.size(), packed.data(), packed.size()));
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out((packed.size() + 2) / 3 * 4, '=');
  for (std::size_t i = 0, o = 0; i < packed.size(); i += 3, o += 4) {
    const std::size_t left = packed.size() - i;
    const auto byte = [&](std::size_t k) { return k < left ? static_cast<unsigned char>(packed[i + k]) : 0u; };
    const unsigned v = (byte(0) << 16) | (byte(1) << 8) | byte(2);
    out[o] = kDigits[v >> 18];
    out[o + 1] = kDigits[(v >> 12) & 63];
    if (left > 1) out[o + 2] = kDigits[(v >> 6) & 63];
    if (left > 2) out[o + 3] = kDigits[v & 63];
  }
  return out;
}

/// Collects arrays; what it returns goes into the JSON and tells the page how to read the array.
class Blobs {
 public:
  /// Q = unsigned type; the largest code means "no value".
  template <class Q>
  json quantised(const std::vector<float>& values) {
    constexpr unsigned kNone = std::numeric_limits<Q>::max();
    float low = std::numeric_limits<float>::max(), high = std::numeric_limits<float>::lowest();
    for (const float v : values) {
      if (!std::isfinite(v)) continue;
      low = std::min(low, v);
      high = std::max(high, v);
    }
    if (low > high) low = high = 0;
    const double step = high > low ? (static_cast<double>(high) - low) / (kNone - 1) : 1.0;
    std::vector<Q> q(values.size());
    for (std::size_t i = 0; i < q.size(); ++i)
      q[i] =
          static_cast<Q>(std::isfinite(values[i]) ? std::lround((static_cast<double>(values[i]) - low) / step) : kNone);
    json j = raw(q, sizeof(Q) == 1 ? "u8" : "u16");
    j["offset"] = low;
    j["scale"] = step;
    return j;
  }

  template <class T>
  json raw(const std::vector<T>& values, const char* type) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return add(std::move(bytes), type);
  }

  json lines(const std::vector<std::string>& values) {
    std::string bytes;
    for (const auto& v : values) {
      for (const char c : v) bytes += c == '\n' ? ' ' : c;
      bytes += '\n';
    }
    return add(std::move(bytes), "lines");
  }

  std::vector<Blob> list;

 private:
  json add(std::string bytes, const char* type) {
    list.push_back({fmt::format("d{}", list.size()), std::move(bytes), {}});
    return {{"id", list.back().id}, {"type", type}};
  }
};

void check_size(const char* what, std::size_t got, std::int64_t expected) {
  SCW_EXPECT_AS(ShapeMismatch, static_cast<std::int64_t>(got) == expected, kOp,
                "{} has the wrong length (got {}, expected {})", what, got, expected);
}

/// JSON has no NaN: null.
json number(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

/// The same text as JSON that cannot end a script element.
std::string script_safe(const json& j) {
  const std::string text = j.dump(-1, ' ', false, json::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  }
  return out;
}

json pairs(const std::vector<std::pair<std::string, std::string>>& list) {
  json j = json::array();
  for (const auto& [k, v] : list) j.push_back({k, v});
  return j;
}

json describe(const ReportData& d, Blobs& blobs) {
  json meta;
  meta["title"] = d.title;
  meta["subtitle"] = d.subtitle;
  meta["facts"] = pairs(d.facts);
  meta["n"] = d.n_cells;
  if (!d.x.empty()) {
    check_size("x", d.x.size(), d.n_cells);
    check_size("y", d.y.size(), d.n_cells);
    meta["embedding"] = {{"name", d.embedding_name},
                         {"x", blobs.quantised<std::uint16_t>(d.x)},
                         {"y", blobs.quantised<std::uint16_t>(d.y)}};
  }
  if (!d.cell_names.empty() && d.n_cells <= 200000) {
    check_size("cell_names", d.cell_names.size(), d.n_cells);
    meta["cells"] = blobs.lines(d.cell_names);
  }
  meta["colourings"] = json::array();
  for (const auto& c : d.colourings) {
    json j = {{"name", c.name}};
    if (!c.categories.empty()) {
      check_size("codes of a colouring", c.codes.size(), d.n_cells);
      j["categories"] = c.categories;
      std::vector<std::uint16_t> codes(c.codes.size());
      std::vector<std::int64_t> sizes(c.categories.size());
      for (std::size_t i = 0; i < codes.size(); ++i) {
        const bool known = c.codes[i] >= 0 && c.codes[i] < 0xFFFF;
        codes[i] = known ? static_cast<std::uint16_t>(c.codes[i]) : std::uint16_t{0xFFFF};
        if (known) ++sizes.at(codes[i]);
      }
      j["sizes"] = sizes;
      j["codes"] = blobs.raw(codes, "u16");
    } else {
      check_size("values of a colouring", c.values.size(), d.n_cells);
      j["values"] = blobs.quantised<std::uint16_t>(c.values);
    }
    meta["colourings"].push_back(std::move(j));
  }
  meta["genes"] = json::array();
  for (const auto& g : d.genes) {
    check_size("values of a gene", g.values.size(), d.n_cells);
    meta["genes"].push_back({{"name", g.name}, {"values", blobs.quantised<std::uint8_t>(g.values)}});
  }
  meta["qc"] = json::array();
  for (const auto& h : d.qc) {
    json thresholds = json::array();
    for (const auto& t : h.thresholds)
      thresholds.push_back({{"value", t.value}, {"keep", t.minimum ? "above" : "below"}});
    meta["qc"].push_back({{"name", h.name},
                          {"low", h.low},
                          {"high", h.high},
                          {"counts", h.counts},
                          {"thresholds", std::move(thresholds)},
                          {"note", h.note}});
  }
  const auto& v = d.variable_genes;
  if (!v.names.empty()) {
    const auto n = static_cast<std::int64_t>(v.names.size());
    check_size("variable_genes.x", v.x.size(), n);
    check_size("variable_genes.y", v.y.size(), n);
    check_size("variable_genes.selected", v.selected.size(), n);
    meta["variable_genes"] = {{"x", blobs.raw(v.x, "f32")},
                              {"y", blobs.raw(v.y, "f32")},
                              {"selected", blobs.raw(v.selected, "u8")},
                              {"names", blobs.lines(v.names)},
                              {"x_label", v.x_label},
                              {"y_label", v.y_label},
                              {"log_x", v.log_x},
                              {"log_y", v.log_y}};
  }
  meta["pca"] = json::array();
  for (const double r : d.pca_variance_ratio) meta["pca"].push_back(number(r));
  meta["cluster_key"] = d.cluster_key;
  meta["markers"] = json::array();
  for (const auto& [group, list] : d.markers) {
    json rows = json::array();
    for (const auto& m : list)
      rows.push_back({m.gene, number(m.score), number(m.log_fold_change), number(m.p_value), number(m.adjusted_p_value),
                      m.fraction_in < 0 ? json(nullptr) : number(m.fraction_in),
                      m.fraction_out < 0 ? json(nullptr) : number(m.fraction_out)});
    meta["markers"].push_back({{"group", group}, {"rows", std::move(rows)}});
  }
  if (!d.dot_plot.genes.empty()) {
    const auto cells = checked_mul(static_cast<std::int64_t>(d.dot_plot.genes.size()),
                                   static_cast<std::int64_t>(d.dot_plot.groups.size()));
    check_size("dot_plot.mean", d.dot_plot.mean.size(), cells);
    check_size("dot_plot.fraction", d.dot_plot.fraction.size(), cells);
    check_size("dot_plot.group_of_gene", d.dot_plot.group_of_gene.size(),
               static_cast<std::int64_t>(d.dot_plot.genes.size()));
    meta["dot_plot"] = {{"groups", d.dot_plot.groups},
                        {"genes", d.dot_plot.genes},
                        {"group_of_gene", d.dot_plot.group_of_gene},
                        {"mean", d.dot_plot.mean},
                        {"fraction", d.dot_plot.fraction}};
  }
  meta["steps"] = json::array();
  for (const auto& s : d.steps)
    meta["steps"].push_back(
        {{"name", s.name}, {"summary", s.summary}, {"seconds", s.seconds}, {"peak_bytes", s.peak_bytes}});
  meta["parameters"] = pairs(d.parameters);
  meta["versions"] = pairs(d.versions);
  return meta;
}

}  // namespace

std::int64_t report_gene_budget(std::int64_t n_cells) {
  return std::clamp<std::int64_t>(48'000'000 / std::max<std::int64_t>(1, n_cells), 8, 200);
}

std::string plotly_version() {
  const std::string_view js = report_assets().plotly.substr(0, 200);
  const auto at = js.find("plotly.js v");
  if (at == std::string_view::npos) return js.empty() ? "" : "unknown";
  const auto begin = at + std::strlen("plotly.js v");
  return std::string(js.substr(begin, js.find_first_not_of("0123456789.", begin) - begin));
}

std::string render_report(const Context& ctx, const ReportData& data) {
  const ReportAssets& assets = report_assets();
  SCW_EXPECT_AS(
      NotSupported, !assets.plotly.empty(), kOp,
      "this build has no Plotly.js (rebuild with the Python package plotly installed, or with SCWARP_PLOTLY_JS set)");
  Blobs blobs;
  const json meta = describe(data, blobs);
  parallel_for(ctx.host(), static_cast<std::int64_t>(blobs.list.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      blobs.list[i].encoded = gzip_base64(blobs.list[i].bytes);
  });

  std::string data_elements = "<script type=\"application/json\" id=\"scw-meta\">" + script_safe(meta) + "</script>\n";
  for (const auto& b : blobs.list)
    data_elements += "<script type=\"text/plain\" id=\"" + b.id + "\">" + b.encoded + "</script>\n";

  const std::pair<std::string_view, std::string> parts[] = {{"{{TITLE}}", escape_html(data.title)},
                                                            {"{{STYLE}}", std::string(assets.css)},
                                                            {"{{DATA}}", std::move(data_elements)},
                                                            {"{{PLOTLY}}", std::string(assets.plotly)},
                                                            {"{{SCRIPT}}", std::string(assets.js)}};
  std::size_t size = assets.html.size();
  for (const auto& part : parts) size += part.second.size();
  std::string out;
  out.reserve(size);
  std::string_view rest = assets.html;
  for (const auto& [mark, text] : parts) {  // in the order of the template, so that no part is searched for marks
    const auto at = rest.find(mark);
    SCW_ASSERT(at != std::string_view::npos);
    out += rest.substr(0, at);
    out += text;
    rest.remove_prefix(at + mark.size());
  }
  out += rest;
  return out;
}

void write_report(const Context& ctx, const ReportData& data, const std::string& path) {
  const std::string html = render_report(ctx, data);
  io::ReplaceFile file(kOp, path);
  const bool written = io::write_fully(file.fd(), html.data(), static_cast<std::int64_t>(html.size()), 0);
  SCW_EXPECT_AS(IoError, written, kOp, "'{}' cannot be written ({})", path, std::strerror(errno));
  file.commit();
}

}  // namespace scw::pipeline
