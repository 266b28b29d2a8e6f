#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/gzip_output.hpp"
#include "io/number_types.hpp"
#include "io/replace_file.hpp"
#include "io/tenx_output.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/version.hpp"

namespace scw::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kOp = "write_10x_mtx";
constexpr std::size_t kLongestEntry = 56;   // "2147483647 2147483647 " and a double
constexpr std::int64_t kEntries = 1 << 16;  // of a chunk, and of the work of one thread at a time
constexpr std::int64_t kDense = 1 << 20;    // values of a chunk, most of them zero
constexpr std::size_t kHeaderBytes = 320;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Entries as text; remembers whether all were integers.
class Entries {
 public:
  explicit Entries(std::string& out) : out_(out) {}
  void reserve(std::size_t entries) {
    if (out_.size() < used_ + entries * kLongestEntry) out_.resize(used_ + entries * kLongestEntry);
  }
  template <class T>
  void add(std::int64_t row, std::int64_t col, T value) {
    char* p = out_.data() + used_;
    char* const end = out_.data() + out_.size();
    p = std::to_chars(p, end, row + 1).ptr;
    *p++ = ' ';
    p = std::to_chars(p, end, col + 1).ptr;
    *p++ = ' ';
    p = number(p, end, value);
    *p++ = '\n';
    used_ = static_cast<std::size_t>(p - out_.data());
    ++n_;
  }
  std::string_view text() const { return {out_.data(), used_}; }
  std::int64_t n() const { return n_; }
  bool integers() const { return integers_; }

 private:
  template <class T>
  char* number(char* p, char* end, T value) {
    if constexpr (std::is_floating_point_v<T>) {
      if (std::abs(value) < T(1 << 24) && value == std::trunc(value))
        return std::to_chars(p, end, static_cast<std::int32_t>(value)).ptr;
      integers_ = integers_ && std::isfinite(value) && value == std::trunc(value) && std::abs(value) < T(0x1p53);
      if (integers_) return std::to_chars(p, end, static_cast<std::int64_t>(value)).ptr;
      return std::to_chars(p, end, value).ptr;
    } else {
      return std::to_chars(p, end, value).ptr;
    }
  }

  std::string& out_;
  std::size_t used_ = 0;
  std::int64_t n_ = 0;
  bool integers_ = true;
};

/// One thread's buffers.
struct Worker {
  std::unique_ptr<GzipPacker> packer;
  std::string text;
  std::vector<std::int32_t> indices;
  std::vector<std::byte> values;
};

class MtxWriter {
 public:
  MtxWriter(const Context& ctx, const MatrixStream& m, int level)
      : ctx_(ctx), m_(m), level_(level), workers_(at(std::max(1, ctx.n_threads))) {}

  void write(NewFile& file) {
    file.append(header(0, true));
    if (m_.layout != StoredLayout::dense) indptr_ = offsets_of(kOp, m_);
    const std::int64_t rows = std::max<std::int64_t>(1, kDense / std::max<std::int64_t>(1, m_.n_cols));
    const std::int64_t total = m_.layout == StoredLayout::dense ? m_.n_rows : m_.nnz;
    const std::int64_t step = m_.layout == StoredLayout::dense ? rows : kEntries;
    // Some chunks at a time, so that threads have work and what is packed stays small; then to the file in order.
    const std::int64_t batch = step * 8 * static_cast<std::int64_t>(workers_.size());
    std::vector<std::string> packed(workers_.size() * 8);
    std::atomic<std::int64_t> entries{0};
    std::atomic<bool> integers{true};
    for (std::int64_t begin = 0; begin < total; begin += batch) {
      const std::int64_t n = std::min(batch, total - begin);
      parallel_chunks(ctx_, n, step, [&](std::int64_t c, std::int64_t first, std::int64_t last, int w) {
        Worker& worker = workers_[at(w)];
        Entries out(worker.text);
        const bool known = with_type(m_.dtype, [&]<class T>(T) {
          if (m_.layout == StoredLayout::dense)
            dense<T>(begin + first, last - first, worker, out);
          else
            sparse<T>(begin + first, last - first, worker, out);
        });
        SCW_EXPECT_AS(NotSupported, known, kOp, "values of type {} cannot be written", m_.dtype);
        entries += out.n();
        if (!out.integers()) integers = false;
        std::string& to = packed[at(c)];
        to.clear();
        if (level_ == 0) {
          to = out.text();
        } else {
          if (!worker.packer) worker.packer = std::make_unique<GzipPacker>(level_);
          worker.packer->pack(out.text(), to);
        }
      });
      for (std::int64_t c = 0; c < chunk_count(n, step); ++c) file.append(packed[at(c)]);
      ctx_.report(kOp, begin + n, total);
    }
    if (level_ > 0) file.append(gzip_end());
    // What it says is known now; it is as long as before.
    file.put(0, header(entries, integers));
  }

 private:
  std::string header(std::int64_t entries, bool integers) const {
    auto text = fmt::format(
        "%%MatrixMarket matrix coordinate {} general\n%metadata_json: {{\"software_version\": \"scwarp {}\", "
        "\"format_version\": 2}}\n%",
        integers ? "integer" : "real", kVersion);
    const auto sizes = fmt::format("\n{} {} {}\n", m_.n_cols, m_.n_rows, entries);
    SCW_ASSERT(text.size() + sizes.size() <= kHeaderBytes);
    text.append(kHeaderBytes - text.size() - sizes.size(), ' ');
    text += sizes;
    return level_ == 0 ? text : gzip_stored(text);
  }

  template <class T>
  void sparse(std::int64_t first, std::int64_t n, Worker& worker, Entries& out) const {
    worker.indices.resize(at(n));
    worker.values.resize(at(n) * sizeof(T));
    m_.indices(first, n, reinterpret_cast<std::byte*>(worker.indices.data()));
    m_.values(first, n, worker.values.data());
    const auto* values = reinterpret_cast<const T*>(worker.values.data());
    const bool by_gene = m_.layout == StoredLayout::csc;
    out.reserve(at(n));
    std::int64_t major = std::upper_bound(indptr_.begin(), indptr_.end(), first) - indptr_.begin() - 1;
    for (std::int64_t i = 0; i < n; ++i) {
      while (indptr_[at(major + 1)] <= first + i) ++major;
      const std::int64_t minor = worker.indices[at(i)];
      out.add(by_gene ? major : minor, by_gene ? minor : major, values[i]);
    }
  }

  template <class T>
  void dense(std::int64_t first, std::int64_t n, Worker& worker, Entries& out) const {
    worker.values.resize(at(checked_mul(n, m_.n_cols)) * sizeof(T));
    m_.values(first, n, worker.values.data());
    const auto* values = reinterpret_cast<const T*>(worker.values.data());
    for (std::int64_t i = 0; i < n; ++i) {
      out.reserve(at(m_.n_cols));
      for (std::int64_t j = 0; j < m_.n_cols; ++j)
        if (const T v = values[i * m_.n_cols + j]; v != T{0}) out.add(j, first + i, v);
    }
  }

  const Context& ctx_;
  const MatrixStream& m_;
  int level_;  // 0: not compressed
  std::vector<std::int64_t> indptr_;
  std::vector<Worker> workers_;
};

/// Columns of text with tabs between them.
std::string lines_of(const std::vector<const std::vector<std::string>*>& columns, const char* what) {
  std::string out;
  for (std::size_t i = 0; i < columns[0]->size(); ++i)
    for (std::size_t k = 0; k < columns.size(); ++k) {
      const std::string& field = (*columns[k])[i];
      SCW_EXPECT(field.find_first_of("\t\n\r") == std::string::npos, kOp,
                 "{} {} has a tab or a line end in its name ('{}')", what, i, field);
      out += field;
      out += k + 1 < columns.size() ? '\t' : '\n';
    }
  return out;
}

void write_text(const fs::path& path, const std::string& text, int level) {
  NewFile file(kOp, path);
  if (level == 0) return file.append(text);
  std::string packed;
  GzipPacker(level).pack(text, packed);
  file.append(packed);
  file.append(gzip_end());
}

/// Nothing but what such a folder has may be lost with the old one.
void expect_replaceable(const std::string& folder) {
  static const std::set<std::string> known{"matrix.mtx", "barcodes.tsv", "features.tsv", "genes.tsv"};
  std::error_code ec;
  if (!fs::is_directory(folder, ec)) return;
  fs::directory_iterator e(folder, ec);
  for (; !ec && e != fs::directory_iterator(); e.increment(ec)) {
    auto name = e->path().filename().string();
    if (name.ends_with(".gz")) name.resize(name.size() - 3);
    SCW_EXPECT_AS(IoError, known.contains(name), kOp,
                  "'{}' exists and holds '{}' (expected no folder, an empty one, or one with the files of a matrix "
                  "alone)",
                  folder, e->path().filename().string());
  }
  SCW_EXPECT_AS(IoError, !ec, kOp, "'{}' cannot be listed ({})", folder, ec.message());
}

}  // namespace

void write_10x_mtx(const Context& ctx, const AnnData& data, const std::string& folder,
                   const Write10xMtxOptions& options) {
  SCW_EXPECT(options.version == 2 || options.version == 3, kOp, "version must be 2 or 3 (got {})", options.version);
  SCW_EXPECT(options.compression_level >= 1 && options.compression_level <= 12, kOp,
             "compression_level must be 1 to 12 (got {})", options.compression_level);
  SCW_EXPECT(data.X.has_value(), kOp, "there is no X");
  data.validate();
  expect_replaceable(folder);
  const bool v3 = options.version == 3;
  const int level = v3 ? options.compression_level : 0;
  const std::string suffix = v3 ? ".gz" : "";
  const Stream x = stream_over(*data.X);
  const FeatureNames names = feature_names(data.var);
  std::vector<const std::vector<std::string>*> features{&names.ids, &names.symbols};
  if (v3) features.push_back(&names.types);
  const auto feature_lines = lines_of(features, "gene"), barcode_lines = lines_of({&data.obs.index()}, "cell");
  warn_of_rest(ctx, kOp, "a 10x folder", data);

  ReplaceFolder out(kOp, folder);
  {
    NewFile matrix(kOp, out.path() / ("matrix.mtx" + suffix));
    MtxWriter(ctx, *x, level).write(matrix);
  }
  write_text(out.path() / ((v3 ? "features.tsv" : "genes.tsv") + suffix), feature_lines, level);
  write_text(out.path() / ("barcodes.tsv" + suffix), barcode_lines, level);
  out.commit();
}

}  // namespace scw::io
