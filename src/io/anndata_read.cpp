#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/anndata_codec.hpp"
#include "io/index_check.hpp"
#include "io/pieces.hpp"
#include "io/streams.hpp"
#include "io/transpose.hpp"

namespace scw::io {
namespace {

constexpr std::int64_t kRowGrain = 512;
constexpr std::int64_t kMaxUnsElements = 4 << 20;  // larger arrays in uns stay in the file
constexpr int kMaxDepth = 64;
constexpr std::int64_t kFreeRows = 1 << 22;  // of matrices by column
constexpr std::int64_t kPiecesAhead = 4;     // asked for while another one is unpacked

struct Selection;

class Reader {
 public:
  /// Matrices go where `ctx` is, everything else to the host.
  Reader(const Context& ctx, std::shared_ptr<const Store> source, const ReadH5adOptions& options)
      : to_(ctx), ctx_(ctx.host()), source_(std::move(source)), options_(options), session_(source_->session()) {}

  AnnData read();
  /// One element, where `ctx` is.
  MatrixElement element(const std::string& name);

 private:
  MatrixElement matrix(const Node& node);
  /// The values of X, if options ask for it.
  void check_matrix(const Node& node, const MatrixElement& m);
  static std::string encoding(const Node& node) { return node.text_attribute("encoding-type").value_or(""); }
  static Foreign foreign(const Node& node, const std::string& type);
  static bool is_sparse(const Node& node);

  template <class T>
  Array<T> numbers(const StoredArray& d, const char* tag) {
    Array<T> out(ctx_.memory, d.count, tag);
    if (!d.read_numbers(ctx_, out.data())) d.fail("holds values out of range for {} bits", sizeof(T) * 8);
    return out;
  }
  template <class T>
  std::vector<T> small_numbers(const StoredArray& d) {
    std::vector<T> out(static_cast<std::size_t>(d.count));
    if (!d.read_numbers(ctx_, out.data())) d.fail("holds values out of range for {} bits", sizeof(T) * 8);
    return out;
  }
  static std::unique_ptr<StoredArray> vector_of(const Node& group, const char* name, std::int64_t expected);

  template <class T>
  bool read_pieces(const Context& to, const StoredArray& d, T* out, std::int64_t rows,
                   const std::function<void(std::int64_t, const T*, std::int64_t)>& look = {});
  bool is_selection() const { return !options_.obs_mask.empty() || !options_.var_mask.empty(); }
  template <class V>
  std::optional<Csr<V>> selected_sparse(const Node& node, const Array<std::int64_t>& offsets,
                                        const StoredArray& indices, const StoredArray& values, const Selection& major,
                                        const Selection& minor, bool by_column);
  template <class V>
  std::optional<Matrix<V>> selected_dense(const StoredArray& d, const Selection& rows, const Selection& cols);

  MatrixElement sparse(const Node& node, bool keep_order = false);
  /// Cells or genes that the store has names for, whichever are more.
  std::int64_t longest_axis() const;
  template <class V>
  Csr<V> finish_sparse(const Node& node, bool by_column, bool keep_order, bool checked, std::int64_t n_rows,
                       std::int64_t n_cols, Array<std::int64_t> indptr, Array<std::int32_t> indices, Array<V> values);
  template <class V>
  void repair(const Node& node, bool by_column, bool keep_order, std::int64_t n_major, std::int64_t n_minor,
              const Array<std::int64_t>& indptr, Array<std::int32_t>& indices, Array<V>& values);
  MatrixElement dense(const StoredArray& d);
  void not_streamed(const std::string& path) const {
    ctx_.info(fmt::format("{}: '{}', object '{}': cannot be read in pieces; it is held in memory", source_->op(),
                          source_->name(), path));
  }
  template <class V>
  void check_counts(const Node& node, const V* values, std::int64_t n,
                    const std::function<std::string(std::int64_t)>& where);

  Column column(const Node& node, std::int64_t n_rows, const Node* frame);
  Categorical::Categories categories(const StoredArray& d);
  Categorical categorical(const Node& where, const StoredArray& codes, const StoredArray& names, bool ordered);
  std::optional<Column> plain_column(const StoredArray& d);
  DataFrame frame(const Node& node);
  DataFrame record_frame(const StoredArray& d);

  /// `others`: without what is_selectable.
  AxisElements axis(const Node& parent, const char* name, std::int64_t rows, std::int64_t cols, bool others = false);
  bool is_selectable(const Node& node) const;
  /// What f reads, of these rows and columns of matrices only.
  template <class F>
  auto selecting(Span<const std::uint8_t> obs_mask, Span<const std::uint8_t> var_mask, F&& f) {
    options_.obs_mask = obs_mask;
    options_.var_mask = var_mask;
    auto out = f();
    options_.obs_mask = options_.var_mask = {};
    return out;
  }
  std::optional<AxisElement> axis_element(const Node& node, bool keep_order);
  Value value(const Node& node, int depth);
  Value array_value(const StoredArray& d);
  void adopt_legacy_categories(AnnData& a);

  const Context to_, ctx_;
  std::shared_ptr<const Store> source_;
  ReadH5adOptions options_;
  std::shared_ptr<void> session_;
  std::set<std::uint64_t> groups_seen_;
};

std::string describe_node(const Node& node, const std::string& type) {
  if (!type.empty()) return type;
  return node.is_group ? "group without encoding" : "dataset without encoding";
}

Foreign Reader::foreign(const Node& node, const std::string& type) { return {node.path, describe_node(node, type)}; }

bool Reader::is_sparse(const Node& node) {
  if (!node.is_group) return false;
  const auto type = encoding(node);
  return type == "csr_matrix" || type == "csc_matrix" || node.has_attribute("h5sparse_format");
}

std::unique_ptr<StoredArray> Reader::vector_of(const Node& group, const char* name, std::int64_t expected) {
  auto d = group.child(name)->array();
  if (d->dims.size() != 1) d->fail("has {} dimensions (expected 1)", d->dims.size());
  if (expected >= 0 && d->count != expected) d->fail("has {} entries (expected {})", d->count, expected);
  return d;
}

// ----------------------------------------------------------------------------------------------------------- matrices

/// The smallest row for which `bad` gives a non-negative position, and that position; {-1, -1} if there is none.
template <class Bad>
std::pair<std::int64_t, std::int64_t> first_bad(const Context& ctx, std::int64_t n_rows, Bad&& bad) {
  const std::int64_t chunks = chunk_count(n_rows, kRowGrain);
  std::vector<std::pair<std::int64_t, std::int64_t>> found(static_cast<std::size_t>(chunks), {-1, -1});
  parallel_chunks(ctx, n_rows, kRowGrain, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      if (const std::int64_t p = bad(i); p >= 0) {
        found[static_cast<std::size_t>(chunk)] = {i, p};
        return;
      }
  });
  for (const auto& f : found)
    if (f.first >= 0) return f;
  return {-1, -1};
}

/// A whole array -> `out` where `to` is, `rows` rows at a time, each of which `look` sees (if there is one) as soon as
/// it is there. False as for StoredArray::read.
template <class T>
bool Reader::read_pieces(const Context& to, const StoredArray& d, T* out, std::int64_t rows,
                         const std::function<void(std::int64_t, const T*, std::int64_t)>& look) {
  const std::int64_t n = d.rows();
  if (d.count == 0) return true;
  const std::int64_t cols = d.count / n;
  if (!d.is_concurrent()) {
    const bool fits = d.read(ctx_, 0, n, out);
    if (look)
      parallel_for(ctx_, n, rows,
                   [&](std::int64_t begin, std::int64_t end) { look(begin, out + begin * cols, end - begin); });
    return fits;
  }
  const SessionPause pause(*source_, session_);
  return read_in_pieces(to, d, 0, n, out, std::min(rows, n), [&](std::int64_t first, const T* x, std::int64_t count) {
    if (look) look(first, x, count);
  });
}

/// Rows or columns to keep.
struct Selection {
  std::vector<std::int64_t> kept;   ///< rising
  std::vector<std::int32_t> place;  ///< of every one among those kept, or -1
  template <class Where>
  Selection(const Where& where, Span<const std::uint8_t> mask, std::int64_t n, const char* name) {
    if (!mask.empty() && mask.size != n)
      where.template fail<ShapeMismatch>("{} has {} entries (expected {})", name, mask.size, n);
    place.assign(static_cast<std::size_t>(n), -1);
    for (std::int64_t i = 0; i < n; ++i) {
      if (!mask.empty() && mask[i] == 0) continue;
      place[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(kept.size());
      kept.push_back(i);
    }
  }
  std::int64_t size() const { return static_cast<std::int64_t>(kept.size()); }
};

/// Kept rows that are read in one go: [first, last) of Selection::kept.
struct Run {
  std::size_t first = 0, last = 0;
};
/// Neighbours whose distance is short are read together with what lies between them, `most` entries at once.
template <class Begin>
std::vector<Run> runs_of(const Selection& rows, std::int64_t most, std::int64_t gap, const Begin& begin) {
  std::vector<Run> out;
  for (std::size_t k = 0; k < rows.kept.size(); ++k) {
    const std::int64_t row = rows.kept[k];
    if (!out.empty()) {
      Run& run = out.back();
      const std::int64_t start = begin(rows.kept[run.first]), end = begin(rows.kept[run.last - 1] + 1);
      if (begin(row) - end <= gap && begin(row + 1) - start <= most) {
        run.last = k + 1;
        continue;
      }
    }
    out.push_back({k, k + 1});
  }
  return out;
}

/// Nothing if a value does not fit.
template <class V>
std::optional<Csr<V>> Reader::selected_sparse(const Node& node, const Array<std::int64_t>& offsets,
                                              const StoredArray& indices, const StoredArray& values,
                                              const Selection& major, const Selection& minor, bool by_column) {
  struct Part {
    std::vector<std::int32_t> indices;
    std::vector<V> values;
  };
  const auto n_minor = static_cast<std::int64_t>(minor.place.size());
  const std::int64_t chunk = std::max(indices.chunk_rows(), values.chunk_rows());
  const auto runs = runs_of(major, std::max<std::int64_t>(1 << 20, 8 * chunk), std::max<std::int64_t>(1 << 12, chunk),
                            [&](std::int64_t row) { return offsets[row]; });
  std::vector<Part> parts(runs.size());
  Csr<V> out;
  out.n_rows = major.size();
  out.n_cols = static_cast<std::int32_t>(minor.size());
  out.indptr = Array<std::int64_t>(ctx_.memory, out.n_rows + 1, "indptr");
  out.indptr[0] = 0;
  std::atomic<bool> fits{true}, sorted{true};
  Context one = ctx_;
  one.n_threads = 1;
  const auto n_runs = static_cast<std::int64_t>(runs.size());
  const Context& workers = indices.is_concurrent() && values.is_concurrent() ? ctx_ : one;
  parallel_for(workers, n_runs, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int32_t> index;
    std::vector<V> value;
    std::vector<std::pair<std::int32_t, V>> row;
    for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
      const std::int64_t first = offsets[major.kept[runs[r].first]], last = offsets[major.kept[runs[r].last - 1] + 1];
      if (r + kPiecesAhead < runs.size()) {
        const Run& next = runs[r + kPiecesAhead];
        const std::int64_t begins = offsets[major.kept[next.first]];
        for (const StoredArray* part : {&indices, &values})
          part->will_read(begins, offsets[major.kept[next.last - 1] + 1] - begins);
      }
      index.resize(static_cast<std::size_t>(last - first));
      value.resize(index.size());
      if (!indices.read(one, first, last - first, index.data())) indices.fail("holds values out of range for 32 bits");
      if (!values.read(one, first, last - first, value.data())) fits = false;
      for (std::size_t k = runs[r].first; k < runs[r].last; ++k) {
        const std::int64_t i = major.kept[k];
        row.clear();
        bool rising = true;
        for (std::int64_t p = offsets[i]; p < offsets[i + 1]; ++p) {
          const auto q = static_cast<std::size_t>(p - first);
          if (index[q] < 0 || index[q] >= n_minor)
            node.fail<DataError>("index {} at position {} ({} {}) is out of range (expected 0 to {})", index[q], p,
                                 by_column ? "column" : "row", i, n_minor - 1);
          rising = rising && (p == offsets[i] || index[q - 1] < index[q]);
          const std::int32_t to = minor.place[static_cast<std::size_t>(index[q])];
          if (to >= 0) row.emplace_back(to, value[q]);
        }
        if (!rising) {
          sorted = false;
          std::stable_sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
          const auto twice = std::adjacent_find(row.begin(), row.end(),
                                                [](const auto& a, const auto& b) { return a.first == b.first; });
          if (twice != row.end() || !options_.sort_indices)
            node.fail<DataError>("unsorted or duplicate index in {} {}", by_column ? "column" : "row", i);
        }
        out.indptr[static_cast<std::int64_t>(k) + 1] = static_cast<std::int64_t>(row.size());
        for (const auto& [j, v] : row) {
          parts[r].indices.push_back(j);
          parts[r].values.push_back(v);
        }
      }
    }
  });
  if (!fits) return std::nullopt;
  if (!sorted)
    ctx_.info(fmt::format("{}: '{}', object '{}': indices were not sorted in every {}; sorted", source_->op(),
                          source_->name(), node.path, by_column ? "column" : "row"));
  for (std::int64_t k = 0; k < out.n_rows; ++k) out.indptr[k + 1] += out.indptr[k];
  out.indices = Array<std::int32_t>(ctx_.memory, out.indptr[out.n_rows], "indices");
  out.values = Array<V>(ctx_.memory, out.indptr[out.n_rows], "values");
  parallel_for(ctx_, n_runs, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
      const std::int64_t at = out.indptr[static_cast<std::int64_t>(runs[r].first)];
      std::copy(parts[r].indices.begin(), parts[r].indices.end(), out.indices.data() + at);
      std::copy(parts[r].values.begin(), parts[r].values.end(), out.values.data() + at);
      parts[r] = {};
    }
  });
  if (by_column) return transpose(ctx_, out.n_rows, minor.size(), out.indptr, out.indices, out.values);
  return out;
}

template <class V>
std::optional<Matrix<V>> Reader::selected_dense(const StoredArray& d, const Selection& rows, const Selection& cols) {
  const std::int64_t width = d.dims[1];
  Matrix<V> out(ctx_.memory, rows.size(), cols.size(), "dense");
  if (out.data.empty()) return out;
  const auto runs = runs_of(rows, std::max<std::int64_t>(1 << 20, d.chunk_rows() * width), width * d.chunk_rows(),
                            [&](std::int64_t row) { return row * width; });
  std::atomic<bool> fits{true};
  Context one = ctx_;
  one.n_threads = 1;
  parallel_for(d.is_concurrent() ? ctx_ : one, static_cast<std::int64_t>(runs.size()), 1,
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<V> block;
                 for (auto r = static_cast<std::size_t>(begin); r < static_cast<std::size_t>(end); ++r) {
                   const std::int64_t first = rows.kept[runs[r].first], last = rows.kept[runs[r].last - 1] + 1;
                   block.resize(static_cast<std::size_t>(checked_mul(last - first, width)));
                   if (!d.read(one, first, last - first, block.data(), cols.place)) fits = false;
                   for (std::size_t k = runs[r].first; k < runs[r].last; ++k) {
                     V* to = out.data.data() + static_cast<std::int64_t>(k) * cols.size();
                     const V* from = block.data() + (rows.kept[k] - first) * width;
                     for (const std::int64_t j : cols.kept) *to++ = from[j];
                   }
                 }
               });
  if (!fits) return std::nullopt;
  return out;
}

MatrixElement Reader::element(const std::string& name) {
  const auto node = source_->root()->find(name);
  SCW_EXPECT(node != nullptr, source_->op(), "'{}' has no '{}'", source_->name(), name);
  MatrixElement m = matrix(*node);
  check_matrix(*node, m);
  return m.device() == to_.device ? std::move(m) : m.copy_to(to_, to_.device);
}

template <class V>
void Reader::check_counts(const Node& node, const V* values, std::int64_t n,
                          const std::function<std::string(std::int64_t)>& where) {
  constexpr std::int64_t kSpan = 1 << 16;
  const auto bad = first_bad(ctx_, chunk_count(n, kSpan), [&](std::int64_t c) -> std::int64_t {
    const std::int64_t end = std::min(n, (c + 1) * kSpan);
    bool ok = true;
    for (std::int64_t p = c * kSpan; p < end; ++p) ok &= values[p] >= 0 && values[p] <= std::numeric_limits<V>::max();
    if (ok) return -1;
    for (std::int64_t p = c * kSpan; p < end; ++p)
      if (!(values[p] >= 0 && values[p] <= std::numeric_limits<V>::max())) return p;
    return -1;
  });
  if (bad.first >= 0)
    node.fail<DataError>("the value at {} is {} (expected counts: finite and not negative)", where(bad.second),
                         values[bad.second]);
}

template <class V>
Csr<V> Reader::finish_sparse(const Node& node, bool by_column, bool keep_order, bool checked, std::int64_t n_rows,
                             std::int64_t n_cols, Array<std::int64_t> indptr, Array<std::int32_t> indices,
                             Array<V> values) {
  const std::int64_t n_major = by_column ? n_cols : n_rows, n_minor = by_column ? n_rows : n_cols;
  if (!checked) repair(node, by_column, keep_order, n_major, n_minor, indptr, indices, values);
  if (by_column) return transpose(ctx_, n_major, n_minor, indptr, indices, values);
  Csr<V> out;
  out.n_rows = n_rows;
  out.n_cols = static_cast<std::int32_t>(n_cols);
  out.indptr = std::move(indptr);
  out.indices = std::move(indices);
  out.values = std::move(values);
  return out;
}

/// Throws for the first index that is out of range or twice in a row; sorts the rows of matrices whose order means
/// nothing.
template <class V>
void Reader::repair(const Node& node, bool by_column, bool keep_order, std::int64_t n_major, std::int64_t n_minor,
                    const Array<std::int64_t>& indptr, Array<std::int32_t>& indices, Array<V>& values) {
  const char* major = by_column ? "column" : "row";
  const auto out_of_range = first_bad(ctx_, n_major, [&](std::int64_t i) -> std::int64_t {
    bool ok = true;
    for (std::int64_t p = indptr[i]; p < indptr[i + 1]; ++p) ok &= indices[p] >= 0 && indices[p] < n_minor;
    if (ok) return -1;
    for (std::int64_t p = indptr[i]; p < indptr[i + 1]; ++p)
      if (indices[p] < 0 || indices[p] >= n_minor) return p;
    return -1;
  });
  if (out_of_range.first >= 0)
    node.fail<DataError>("index {} at position {} ({} {}) is out of range (expected 0 to {})",
                         indices[out_of_range.second], out_of_range.second, major, out_of_range.first, n_minor - 1);
  const auto unsorted = [&](std::int64_t i) -> std::int64_t {
    bool ok = true;
    for (std::int64_t p = indptr[i] + 1; p < indptr[i + 1]; ++p) ok &= indices[p - 1] < indices[p];
    if (ok) return -1;
    for (std::int64_t p = indptr[i] + 1; p < indptr[i + 1]; ++p)
      if (indices[p - 1] >= indices[p]) return p;
    return -1;
  };
  if (keep_order) {
    const auto twice = first_bad(ctx_, n_major, [&](std::int64_t i) -> std::int64_t {
      if (unsorted(i) < 0) return -1;
      std::vector<std::int32_t> row(indices.data() + indptr[i], indices.data() + indptr[i + 1]);
      std::sort(row.begin(), row.end());
      const auto at = std::adjacent_find(row.begin(), row.end());
      return at == row.end() ? -1 : *at;
    });
    if (twice.first >= 0) node.fail<DataError>("duplicate index {} in {} {}", twice.second, major, twice.first);
  } else if (const auto bad = first_bad(ctx_, n_major, unsorted); bad.first >= 0) {
    const bool duplicate = indices[bad.second - 1] == indices[bad.second];
    if (!options_.sort_indices || duplicate)
      node.fail<DataError>("{} index {} in {} {} (position {})", duplicate ? "duplicate" : "unsorted",
                           indices[bad.second], major, bad.first, bad.second);
    parallel_for(ctx_, n_major, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::pair<std::int32_t, V>> row;
      for (std::int64_t i = begin; i < end; ++i) {
        if (unsorted(i) < 0) continue;
        row.clear();
        for (std::int64_t p = indptr[i]; p < indptr[i + 1]; ++p) row.emplace_back(indices[p], values[p]);
        std::stable_sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        for (std::int64_t p = indptr[i]; p < indptr[i + 1]; ++p)
          std::tie(indices[p], values[p]) = row[static_cast<std::size_t>(p - indptr[i])];
      }
    });
    if (const auto twice = first_bad(ctx_, n_major, unsorted); twice.first >= 0)
      node.fail<DataError>("duplicate index {} in {} {}", indices[twice.second], major, twice.first);
    ctx_.info(fmt::format("{}: '{}', object '{}': indices were not sorted in every {}; sorted", source_->op(),
                          source_->name(), node.path, major));
  }
}

std::int64_t Reader::longest_axis() const {
  std::int64_t most = 0;
  const auto root = source_->root();
  for (const char* name : {"obs", "var"}) {
    const auto node = root->find(name);
    if (!node) continue;
    const auto index = node->is_group ? node->text_attribute("_index") : std::nullopt;
    if (const auto names = index ? node->find(*index) : nullptr; names && !names->is_group)
      most = std::max(most, names->array()->count);
    else if (!node->is_group)
      most = std::max(most, node->array()->count);
  }
  return most;
}

MatrixElement Reader::sparse(const Node& node, bool keep_order) {
  const bool legacy = node.has_attribute("h5sparse_format");
  const std::string type = legacy ? node.text_attribute("h5sparse_format").value_or("") : encoding(node);
  const auto shape = node.integers_attribute(legacy ? "h5sparse_shape" : "shape");
  if (type != "csr" && type != "csc" && type != "csr_matrix" && type != "csc_matrix")
    node.fail("has sparse format '{}' (expected csr or csc)", type);
  if (!shape || shape->size() != 2 || (*shape)[0] < 0 || (*shape)[1] < 0)
    node.fail("has no valid shape (expected two sizes)");
  const std::int64_t n_rows = (*shape)[0], n_cols = (*shape)[1];
  const bool by_column = type.starts_with("csc");
  if (n_cols > INT32_MAX || n_rows > INT32_MAX)
    node.fail<NotSupported>("is {} x {} (expected less than 2^31 rows and columns)", n_rows, n_cols);
  if (options_.stream_matrices) {
    const auto layout = by_column ? StoredLayout::csc : StoredLayout::csr;
    auto stream = stored_sparse(ctx_, source_, layout, n_rows, n_cols, node.child("indptr")->array(),
                                node.child("indices")->array(), node.child("data")->array());
    if (stream) return MatrixElement(std::move(stream));
    not_streamed(node.path);
  }
  // Stored by column, rows take no place in the file, but in memory they do.
  if (by_column && n_rows > kFreeRows)
    if (const auto most = longest_axis(); n_rows > most)
      node.fail("declares {} rows in a file of {} names", n_rows, most);
  const std::int64_t n_major = by_column ? n_cols : n_rows;
  const auto offsets = vector_of(node, "indptr", n_major + 1);
  auto indptr = numbers<std::int64_t>(*offsets, "indptr");
  if (indptr[0] != 0) offsets->fail("starts at {} (expected 0)", indptr[0]);
  for (std::int64_t i = 0; i < n_major; ++i)
    if (indptr[i] > indptr[i + 1])
      offsets->fail("falls from {} to {} at position {} (expected rising)", indptr[i], indptr[i + 1], i + 1);
  const std::int64_t nnz = indptr[n_major];
  const auto index_set = vector_of(node, "indices", nnz);
  const auto stored_values = vector_of(node, "data", nnz);
  const StoredArray& value_set = *stored_values;
  if (value_set.type.kind != Kind::integer && value_set.type.kind != Kind::floating &&
      value_set.type.kind != Kind::boolean)
    value_set.fail("is of type {} (expected numbers)", value_set.type.name);
  if (is_selection()) {
    const Selection rows(node, options_.obs_mask, n_rows, "obs_mask");
    const Selection cols(node, options_.var_mask, n_cols, "var_mask");
    const auto pick = [&]<class V>(V) -> std::optional<MatrixElement> {
      auto picked = selected_sparse<V>(node, indptr, *index_set, value_set, by_column ? cols : rows,
                                       by_column ? rows : cols, by_column);
      if (!picked) return std::nullopt;
      MatrixElement m(std::move(*picked));
      m.stored_layout = by_column ? StoredLayout::csc : StoredLayout::csr;
      m.stored_dtype = value_set.type.name;
      return m;
    };
    if (value_set.type.kind != Kind::floating || value_set.type.size <= 4)
      if (auto m = pick(float{})) return std::move(*m);
    if (auto m = pick(double{})) return std::move(*m);
    value_set.fail("holds values above 2^53, which a double cannot hold");
  }
  // Straight to the device, unless there is something to do on the host: transpose, sort, look for counts that are
  // none.
  bool direct = to_.device.type != DeviceType::cpu && !by_column && !options_.check_counts &&
                fits_ring<std::int32_t>(to_, *index_set, 1) && fits_ring<double>(to_, value_set, 1);
  const std::int64_t piece = piece_rows<std::int32_t>(direct ? to_ : ctx_, *index_set, 1);
  IndexCheck check(indptr.view(), by_column ? n_rows : n_cols, piece);
  const auto look = [&](std::int64_t first, const std::int32_t* x, std::int64_t n) { check.look(first, x, n); };
  const auto read_indices = [&](const Context& to) {
    Array<std::int32_t> out(to.memory, nnz, "indices", to.stream);
    if (!read_pieces<std::int32_t>(to, *index_set, out.data(), piece, look))
      index_set->fail("holds values out of range for 32 bits");
    return out;
  };
  auto indices = read_indices(direct ? to_ : ctx_);
  if (direct && !check.is_clean()) {
    direct = false;
    indices = read_indices(ctx_);
  }
  const Context& to = direct ? to_ : ctx_;
  const auto finish = [&]<class V>(Array<V> values) {
    MatrixElement m;
    if (direct) {
      Csr<V> x;
      x.n_rows = n_rows;
      x.n_cols = static_cast<std::int32_t>(n_cols);
      x.indptr = Array<std::int64_t>(to.memory, indptr.size(), "indptr", to.stream);
      copy_bytes(to, x.indptr.data(), to.device, indptr.data(), Device{},
                 static_cast<std::size_t>(indptr.size()) * sizeof(std::int64_t));
      x.indices = std::move(indices);
      x.values = std::move(values);
      m = MatrixElement(std::move(x));
    } else {
      m = MatrixElement(finish_sparse(node, by_column, keep_order && !by_column, check.is_clean(), n_rows, n_cols,
                                      std::move(indptr), std::move(indices), std::move(values)));
    }
    m.stored_layout = by_column ? StoredLayout::csc : StoredLayout::csr;
    m.stored_dtype = value_set.type.name;
    return m;
  };
  if (value_set.type.kind != Kind::floating || value_set.type.size <= 4) {
    Array<float> values(to.memory, nnz, "values", to.stream);
    if (read_pieces<float>(to, value_set, values.data(), piece_rows<float>(to, value_set, 1)))
      return finish(std::move(values));
    ctx_.info(fmt::format("{}: '{}', object '{}': values above 2^24 are read as double", source_->op(), source_->name(),
                          node.path));
  }
  Array<double> values(to.memory, nnz, "values", to.stream);
  if (!read_pieces<double>(to, value_set, values.data(), piece_rows<double>(to, value_set, 1)))
    ctx_.warn(
        fmt::format("{}: '{}', object '{}': values above 2^53 are rounded", source_->op(), source_->name(), node.path));
  return finish(std::move(values));
}

MatrixElement Reader::dense(const StoredArray& d) {
  if (d.dims.size() != 2) d.fail("has {} dimensions (expected 2)", d.dims.size());
  MatrixElement m;
  const auto finish = [&]<class V>(Matrix<V> x) {
    m = MatrixElement(std::move(x));
    m.stored_layout = StoredLayout::dense;
    m.stored_dtype = d.type.name;
    return std::move(m);
  };
  const std::int64_t cols = d.dims[1];
  if (is_selection()) {
    const Selection rows(d, options_.obs_mask, d.dims[0], "obs_mask"), columns(d, options_.var_mask, cols, "var_mask");
    if (d.type.kind != Kind::floating || d.type.size <= 4)
      if (auto x = selected_dense<float>(d, rows, columns)) return finish(std::move(*x));
    if (auto x = selected_dense<double>(d, rows, columns)) return finish(std::move(*x));
    d.fail("holds values above 2^53, which a double cannot hold");
  }
  const bool direct =
      to_.device.type != DeviceType::cpu && !options_.check_counts && d.count > 0 && fits_ring<double>(to_, d, cols);
  const Context& to = direct ? to_ : ctx_;
  const auto read = [&]<class V>(Matrix<V>& x) {
    if (d.count == 0) return true;
    return read_pieces<V>(to, d, x.data.data(), piece_rows<V>(to, d, cols));
  };
  if (d.type.kind != Kind::floating || d.type.size <= 4) {
    Matrix<float> x(to.memory, d.dims[0], cols, "dense", to.stream);
    if (read(x)) return finish(std::move(x));
    ctx_.info(fmt::format("{}: '{}', object '{}': values above 2^24 are read as double", source_->op(), source_->name(),
                          d.path));
  }
  Matrix<double> x(to.memory, d.dims[0], cols, "dense", to.stream);
  if (!read(x))
    ctx_.warn(
        fmt::format("{}: '{}', object '{}': values above 2^53 are rounded", source_->op(), source_->name(), d.path));
  return finish(std::move(x));
}

MatrixElement Reader::matrix(const Node& node) {
  if (is_sparse(node)) return sparse(node);
  if (node.is_group) node.fail("is encoded as '{}' (expected a sparse or dense matrix)", encoding(node));
  if (options_.stream_matrices) {
    if (auto stream = stored_dense(ctx_, source_, node.array())) return MatrixElement(std::move(stream));
    not_streamed(node.path);
  }
  return dense(*node.array());
}

// ------------------------------------------------------------------------------------------------------------ columns

/// Numbers, booleans and text of one dimension; nothing for other datasets.
std::optional<Column> Reader::plain_column(const StoredArray& d) {
  if (d.dims.size() != 1 || d.is_null) return std::nullopt;
  Column c;
  switch (d.type.kind) {
    case Kind::string:
      return Column(d.texts(ctx_));
    case Kind::boolean:
      return Column(Bools{small_numbers<std::uint8_t>(d)});
    case Kind::floating:
      if (d.type.size > 8) return std::nullopt;
      c = d.type.size <= 4 ? Column(small_numbers<float>(d)) : Column(small_numbers<double>(d));
      if (d.type.size != 4 && d.type.size != 8) c.stored_dtype = d.type.name;
      return c;
    case Kind::integer: {
      if (d.type.size < 4 || (d.type.size == 4 && d.type.is_signed)) {
        c = Column(small_numbers<std::int32_t>(d));
      } else {
        std::vector<std::int64_t> values(static_cast<std::size_t>(d.count));
        if (!d.read_numbers(ctx_, values.data())) return std::nullopt;  // above 2^63
        c = Column(std::move(values));
      }
      if (d.type.name != "int32" && d.type.name != "int64") c.stored_dtype = d.type.name;
      return c;
    }
    default:
      return std::nullopt;
  }
}

Categorical::Categories Reader::categories(const StoredArray& d) {
  if (d.dims.size() > 1) d.fail("has {} dimensions (expected 1)", d.dims.size());
  switch (d.type.kind) {
    case Kind::string:
      return d.texts(ctx_);
    case Kind::integer:
      return small_numbers<std::int64_t>(d);
    case Kind::boolean:
      return Bools{small_numbers<std::uint8_t>(d)};
    case Kind::floating:
      return small_numbers<double>(d);
    default:
      d.fail("is of type {} (expected text, numbers or booleans)", d.type.name);
  }
}

Categorical Reader::categorical(const Node& where, const StoredArray& codes, const StoredArray& names, bool ordered) {
  Categorical out;
  out.categories = categories(names);
  out.ordered = ordered;
  out.codes = small_numbers<std::int32_t>(codes);
  const auto n = out.n_categories();
  for (std::size_t i = 0; i < out.codes.size(); ++i)
    if (out.codes[i] < -1 || out.codes[i] >= n)
      where.fail<DataError>("code {} at position {} is out of range (there are {} categories)", out.codes[i], i, n);
  return out;
}

Column Reader::column(const Node& node, std::int64_t n_rows, const Node* frame) {
  const auto type = encoding(node);
  const auto first = [](const std::optional<std::vector<std::int64_t>>& v) {
    return v && !v->empty() && v->front() != 0;
  };
  if (node.is_group) {
    if (type == "categorical")
      return categorical(node, *vector_of(node, "codes", n_rows), *node.child("categories")->array(),
                         first(node.integers_attribute("ordered")));
    if (type == "nullable-integer" || type == "nullable-boolean" || type == "nullable-string-array") {
      auto c = plain_column(*vector_of(node, "values", n_rows));
      if (!c) return foreign(node, type);
      c->missing = small_numbers<std::uint8_t>(*vector_of(node, "mask", n_rows));
      return std::move(*c);
    }
    return foreign(node, type);
  }
  const auto stored = node.array();
  const StoredArray& d = *stored;
  if (d.is_null || d.dims.empty()) return foreign(node, type);
  if (d.dims[0] != n_rows && n_rows >= 0) d.fail("has {} rows (expected {})", d.dims[0], n_rows);
  // anndata 0.7: codes here, categories in __categories under the same name
  if (frame != nullptr && node.has_attribute("categories")) {
    const auto name = node.path.substr(frame->path.size() + 1);
    if (const auto names = frame->find("__categories/" + name))
      return categorical(node, d, *names->array(), first(names->integers_attribute("ordered")));
    node.fail("has codes, but there is no '__categories/{}'", name);
  }
  if (auto c = plain_column(d)) return std::move(*c);
  if (auto rows = d.opaque(ctx_)) return std::move(*rows);
  return foreign(node, type.empty() ? d.type.name : type);
}

DataFrame Reader::frame(const Node& node) {
  if (!node.is_group) return record_frame(*node.array());
  const auto index_name = node.text_attribute("_index");
  if (!index_name) node.fail("has no attribute '_index' (expected a data frame)");
  const auto order = node.texts_attribute("column-order");
  const Column index = column(*node.child(*index_name), -1, &node);
  if (std::holds_alternative<Foreign>(index.data) || std::holds_alternative<OpaqueRows>(index.data))
    node.fail("its index '{}' is neither text nor numbers", *index_name);
  DataFrame out(index.to_strings(), *index_name == "_index" ? "" : *index_name);
  if (index.data.index() < 5) {
    constexpr const char* kNames[] = {"int32", "int64", "float32", "float64", "bool"};
    out.stored_index_dtype = index.stored_dtype.empty() ? kNames[index.data.index()] : index.stored_dtype;
  }
  std::set<std::string> seen;
  if (order)
    for (const auto& name : *order) {
      if (!seen.insert(name).second) node.fail("lists column '{}' twice", name);
      const auto c = node.child(name);
      Column values = column(*c, out.n_rows(), &node);
      if (values.size() >= 0 && values.size() != out.n_rows())
        c->fail("has {} rows (expected {})", values.size(), out.n_rows());
      // Foreign columns have no rows of their own; set() takes them.
      out.set(name, std::move(values));
    }
  return out;
}

/// anndata 0.6: one dataset of records, the first field is the index.
DataFrame Reader::record_frame(const StoredArray& d) {
  const auto s = d.records(ctx_);
  if (!s || s->fields.empty()) d.fail("is neither a data frame nor an array of records");
  const auto to_column = [](const StructArray::Field& f) {
    return std::visit([](const auto& v) { return Column(v); }, f);
  };
  DataFrame out(to_column(s->fields[0].second).to_strings());
  if (s->fields[0].first != "index" && s->fields[0].first != "_index") out.index_name = s->fields[0].first;
  for (std::size_t k = 1; k < s->fields.size(); ++k) out.set(s->fields[k].first, to_column(s->fields[k].second));
  return out;
}

/// Codes in obs and var whose categories are in uns under "<column>_categories", as anndata 0.6 wrote them.
void Reader::adopt_legacy_categories(AnnData& a) {
  std::vector<std::string> used;
  constexpr std::string_view kSuffix = "_categories";
  for (const auto& [key, v] : *std::as_const(a.uns).dict()) {
    if (!key.ends_with(kSuffix)) continue;
    std::vector<std::string> names;
    if (const auto* text = v.get<std::string>())
      names = {*text};
    else if (const auto* texts = v.get<NdArray<std::string>>())
      names = texts->values;
    else
      continue;
    const std::string name = key.substr(0, key.size() - kSuffix.size());
    for (DataFrame* f : {&a.obs, &a.var}) {
      Column* c = f->find(name);
      if (c == nullptr) continue;
      Categorical k;
      if (const auto* small = std::get_if<std::vector<std::int32_t>>(&c->data))
        k.codes = *small;
      else if (const auto* wide = std::get_if<std::vector<std::int64_t>>(&c->data))
        for (const auto code : *wide)
          k.codes.push_back(static_cast<std::int32_t>(std::clamp<std::int64_t>(code, -2, INT32_MAX)));
      else
        continue;
      const auto n = static_cast<std::int64_t>(names.size());
      if (std::any_of(k.codes.begin(), k.codes.end(), [n](std::int32_t code) { return code < -1 || code >= n; }))
        continue;
      k.categories = names;
      *c = Column(std::move(k));
      used.push_back(key);
    }
  }
  for (const auto& key : used) a.uns.dict()->erase(key);
}

// -------------------------------------------------------------------------------------------------- obsm, varm and so
// on

std::optional<AxisElement> Reader::axis_element(const Node& node, bool keep_order) {
  const auto type = encoding(node);
  if (is_sparse(node)) return sparse(node, keep_order);
  if (node.is_group) {
    if (type == "dataframe") return frame(node);
    return foreign(node, type);
  }
  const auto stored = node.array();
  const StoredArray& d = *stored;
  if (d.is_null) return std::nullopt;
  const bool number = (d.type.kind == Kind::floating && d.type.size <= 8) || d.type.kind == Kind::integer ||
                      d.type.kind == Kind::boolean;
  if (d.dims.size() == 2 && number && options_.stream_matrices)
    if (auto stream = stored_dense(ctx_, source_, node.array())) return MatrixElement(std::move(stream));
  if (d.dims.size() == 2 && number && !(d.type.kind == Kind::integer && d.type.size == 8)) return dense(d);
  if (d.dims.size() == 2 && number) {
    Matrix<double> x(ctx_.memory, d.dims[0], d.dims[1], "dense");
    if (d.read_numbers(ctx_, x.data.data())) {
      MatrixElement m(std::move(x));
      m.stored_layout = StoredLayout::dense;
      m.stored_dtype = d.type.name;
      return m;
    }
  }
  if (auto rows = d.opaque(ctx_)) return std::move(*rows);
  return foreign(node, type.empty() ? d.type.name : type);
}

AxisElements Reader::axis(const Node& parent, const char* name, std::int64_t rows, std::int64_t cols, bool others) {
  AxisElements out;
  const auto group = parent.find(name);
  if (!group) return out;
  if (!group->is_group) {
    const auto d = group->array();
    if (!d->is_null) out = d->fields_as_matrices(ctx_);
  } else {
    for (const auto& link : group->links()) {
      const auto node = group->child(link.name);
      if (others && is_selectable(*node)) continue;
      // Graphs: scanpy lists the neighbours of a cell nearest first, which sorting by index would lose.
      auto e = axis_element(*node, cols >= 0);
      if (!e) continue;
      if (scw::n_rows(*e) >= 0 && scw::n_rows(*e) != rows)
        node->fail("has {} rows (expected {})", scw::n_rows(*e), rows);
      if (cols >= 0 && scw::n_cols(*e) >= 0 && scw::n_cols(*e) != cols)
        node->fail("has {} columns (expected {})", scw::n_cols(*e), cols);
      out.insert_or_assign(link.name, std::move(*e));
    }
  }
  return out;
}

/// Whether axis_element reads a matrix that it can select from.
bool Reader::is_selectable(const Node& node) const {
  if (is_sparse(node)) return true;
  if (node.is_group) return false;
  const auto d = node.array();
  return !d->is_null && d->dims.size() == 2 &&
         ((d->type.kind == Kind::floating && d->type.size <= 8) ||
          (d->type.kind == Kind::integer && d->type.size < 8) || d->type.kind == Kind::boolean);
}

// ---------------------------------------------------------------------------------------------------------------- uns

Value Reader::array_value(const StoredArray& d) {
  const auto keep = [&] { return Value(Foreign{d.path, d.type.name}); };
  if (d.is_null) return {};
  if (d.count > kMaxUnsElements || (d.type.kind == Kind::string && !d.has_readable_texts())) return keep();
  if (d.dims.empty()) {
    switch (d.type.kind) {
      case Kind::string:
        return d.texts(ctx_).at(0);
      case Kind::boolean:
        return small_numbers<std::uint8_t>(d)[0] != 0;
      case Kind::integer: {
        std::int64_t v = 0;
        return d.read_numbers(ctx_, &v) ? Value(v) : keep();
      }
      case Kind::floating:
        return d.type.size <= 8 ? Value(small_numbers<double>(d)[0]) : keep();
      default:
        return keep();
    }
  }
  const auto array = [&]<class T>(std::vector<T> values) {
    NdArray<T> a(d.dims, std::move(values));
    a.stored_dtype = d.type.name;
    return a;
  };
  switch (d.type.kind) {
    case Kind::string:
      return Value(NdArray<std::string>(d.dims, d.texts(ctx_)));
    case Kind::boolean:
      return Value(BoolArray(d.dims, small_numbers<std::uint8_t>(d)));
    case Kind::floating:
      if (d.type.size > 8) return keep();
      return d.type.size <= 4 ? Value(array(small_numbers<float>(d))) : Value(array(small_numbers<double>(d)));
    case Kind::integer: {
      if (d.type.size < 4 || (d.type.size == 4 && d.type.is_signed))
        return Value(array(small_numbers<std::int32_t>(d)));
      std::vector<std::int64_t> values(static_cast<std::size_t>(d.count));
      if (!d.read_numbers(ctx_, values.data())) return keep();
      return Value(array(std::move(values)));
    }
    case Kind::compound: {
      auto s = d.records(ctx_);
      return s ? Value(std::move(*s)) : keep();
    }
    default:
      return keep();
  }
}

Value Reader::value(const Node& node, int depth) {
  ctx_.check_cancelled(source_->op());
  const auto type = encoding(node);
  Value out;
  if (!node.is_group) {
    out = array_value(*node.array());
  } else if (type.empty() || type == "dict") {
    if (is_sparse(node)) {
      out = foreign(node, "sparse matrix");
    } else if (depth >= kMaxDepth) {
      node.fail("is nested more than {} deep", kMaxDepth);
    } else if (const auto id = node.identity(); id && !groups_seen_.insert(*id).second) {
      // A second way to the same group: walking it could take for ever.
      out = foreign(node, "group with several names");
    } else {
      Dict d;
      for (const auto& link : node.links()) d.emplace(link.name, value(*node.child(link.name), depth + 1));
      out = std::move(d);
    }
  } else if (type == "dataframe") {
    out = frame(node);
  } else if (type == "categorical") {
    const auto ordered = node.integers_attribute("ordered");
    out = categorical(node, *vector_of(node, "codes", -1), *node.child("categories")->array(),
                      ordered && !ordered->empty() && ordered->front() != 0);
  } else {
    out = foreign(node, type);
  }
  out.set_stored_path(node.path);
  return out;
}

// ------------------------------------------------------------------------------------------------------------- AnnData

void Reader::check_matrix(const Node& node, const MatrixElement& m) {
  if (!options_.check_counts || m.stream != nullptr) return;
  const std::int64_t n_cols = m.n_cols();
  std::visit(
      [&]<class M>(const M& v) {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>) {
          check_counts(node, v.values.data(), v.values.size(), [&](std::int64_t p) {
            const auto row = std::upper_bound(v.indptr.begin(), v.indptr.end(), p) - v.indptr.begin() - 1;
            return fmt::format("cell {}, gene {}", row, v.indices[p]);
          });
        } else {
          check_counts(node, v.data.data(), v.data.size(),
                       [&](std::int64_t p) { return fmt::format("cell {}, gene {}", p / n_cols, p % n_cols); });
        }
      },
      m.data);
}

AnnData Reader::read() {
  const auto top = source_->root();
  const Node& root = *top;
  const auto type = encoding(root);
  if (!type.empty() && type != "anndata") root.fail("is encoded as '{}' (expected anndata)", type);
  auto obs = root.find("obs");
  auto var = root.find("var");
  if (!obs || !var) {
    root.fail("has no '{}' (not an AnnData{})", obs ? "var" : "obs",
              root.find("matrix") ? "; it looks like 10x Genomics HDF5" : "");
  }
  AnnData a;
  a.source = source_;
  const bool legacy = !obs->is_group || !var->is_group;
  a.obs = frame(*obs);
  a.var = frame(*var);
  const std::int64_t n = a.n_obs(), m = a.n_vars();
  const auto obs_mask = options_.obs_mask, var_mask = options_.var_mask;
  if (!obs_mask.empty() && obs_mask.size != n)
    obs->fail<ShapeMismatch>("has {} cells (obs_mask has {} entries)", n, obs_mask.size);
  if (!var_mask.empty() && var_mask.size != m)
    var->fail<ShapeMismatch>("has {} genes (var_mask has {} entries)", m, var_mask.size);
  options_.obs_mask = options_.var_mask = {};
  // Large matrices are selected from while they are read, everything else afterwards; of old layouts everything.
  const bool select = !legacy && (!obs_mask.empty() || !var_mask.empty());
  const auto kept = [&](Span<const std::uint8_t> mask, std::int64_t all) {
    return mask.empty() || !select ? all : all - std::count(mask.begin(), mask.end(), std::uint8_t{0});
  };
  const std::int64_t rows = kept(obs_mask, n), cols = kept(var_mask, m);
  const auto selected = [&](bool genes, auto&& f) {
    return select ? selecting(obs_mask, genes ? var_mask : Span<const std::uint8_t>{}, f) : f();
  };
  const auto check_shape = [&](const Node& node, const MatrixElement& x, std::int64_t x_rows, std::int64_t x_cols) {
    if (x.n_rows() != x_rows || x.n_cols() != x_cols)
      node.fail("is {} x {} (expected {} x {})", x.n_rows(), x.n_cols(), x_rows, x_cols);
  };
  std::optional<MatrixElement> main;
  if (const auto x = root.find("X"); x && (x->is_group || !x->array()->is_null)) {
    main = selected(true, [&] { return matrix(*x); });
    check_shape(*x, *main, rows, cols);
    check_matrix(*x, *main);
  }
  std::optional<Raw> raw_part;
  const auto read_raw = [&](const Node& x, const Node& raw_var, const Node& parent, const char* varm) {
    Raw r;
    r.X = selected(false, [&] { return matrix(x); });
    r.var = frame(raw_var);
    check_shape(x, r.X, rows, r.var.n_rows());
    r.varm = axis(parent, varm, r.var.n_rows(), -1);
    raw_part = std::move(r);
  };
  if (auto raw = root.find("raw"); raw && raw->is_group)
    read_raw(*raw->child("X"), *raw->child("var"), *raw, "varm");
  else if (auto x = root.find("raw.X"))  // anndata 0.6
    read_raw(*x, *root.child("raw.var"), root, "raw.varm");
  Layers matrices;
  if (const auto group = select ? root.find("layers") : nullptr; group && group->is_group) {
    for (const auto& link : group->links()) {
      const auto node = group->child(link.name);
      if (!is_selectable(*node)) continue;
      auto e = selected(true, [&] { return axis_element(*node, true); });
      if (scw::n_rows(*e) != rows || scw::n_cols(*e) != cols)
        node->fail("is {} x {} (expected {} x {})", scw::n_rows(*e), scw::n_cols(*e), rows, cols);
      matrices.insert_or_assign(link.name, std::move(*e));
    }
  }
  a.layers = axis(root, "layers", n, m, select);
  a.obsm = axis(root, "obsm", n, -1);
  a.varm = axis(root, "varm", m, -1);
  a.obsp = axis(root, "obsp", n, n);
  a.varp = axis(root, "varp", m, m);
  if (select) {
    if (!obs_mask.empty()) a.subset_obs(ctx_, obs_mask);
    if (!var_mask.empty()) a.subset_var(ctx_, var_mask);
    a.layers.merge(matrices);
  }
  a.X = std::move(main);
  a.raw = std::move(raw_part);
  if (auto uns = root.find("uns")) {
    if (!uns->is_group) uns->fail("is a dataset (expected a group)");
    a.uns = value(*uns, 0);
    if (std::as_const(a.uns).dict() == nullptr) root.fail("its 'uns' is not a mapping");
  }
  if (legacy) adopt_legacy_categories(a);
  const std::set<std::string> known{"X",    "obs", "var", "layers", "obsm",    "varm",     "obsp",
                                    "varp", "uns", "raw", "raw.X",  "raw.var", "raw.varm", "raw.cat"};
  for (const auto& link : root.links()) {
    if (known.contains(link.name)) continue;
    if (!link.hard)
      source_->fail("/" + link.name, "is a soft or external link; scwarp reads what is in the file itself");
    a.foreign.push_back("/" + link.name);
  }
  if (legacy && !obs_mask.empty()) a.subset_obs(ctx_, obs_mask);
  if (legacy && !var_mask.empty()) a.subset_var(ctx_, var_mask);
  return a;
}

}  // namespace

AnnData read_anndata(const Context& ctx, std::shared_ptr<const Store> source, const ReadH5adOptions& options) {
  SCW_EXPECT((options.obs_mask.empty() && options.var_mask.empty()) || !options.stream_matrices, source->op(),
             "obs_mask and var_mask do not go with stream_matrices");
  return Reader(ctx.host(), std::move(source), options).read();
}

MatrixElement read_anndata_matrix(const Context& ctx, std::shared_ptr<const Store> source, const std::string& element,
                                  const ReadH5adOptions& options) {
  return Reader(ctx, std::move(source), options).element(element);
}

}  // namespace scw::io
