#include <algorithm>
#include <atomic>
#include <limits>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/anndata_reader.hpp"
#include "io/index_check.hpp"
#include "io/pieces.hpp"
#include "io/streams.hpp"
#include "io/transpose.hpp"

namespace scw::io {
namespace {

constexpr std::int64_t kRowGrain = 512;
constexpr std::int64_t kFreeRows = 1 << 22;  // of matrices by column
constexpr std::int64_t kPiecesAhead = 4;     // asked for while another one is unpacked

}  // namespace

bool AnnDataReader::is_sparse(const Node& node) {
  if (!node.is_group) return false;
  const auto type = encoding(node);
  return type == "csr_matrix" || type == "csc_matrix" || node.has_attribute("h5sparse_format");
}

std::unique_ptr<StoredArray> AnnDataReader::vector_of(const Node& group, const char* name, std::int64_t expected) {
  auto d = group.child(name)->array();
  if (d->dims.size() != 1) d->fail("has {} dimensions (expected 1)", d->dims.size());
  if (expected >= 0 && d->count != expected) d->fail("has {} entries (expected {})", d->count, expected);
  return d;
}

namespace {

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

}  // namespace

/// A whole array -> `out` where `to` is, `rows` rows at a time, each of which `look` sees (if there is one) as soon as
/// it is there. False as for StoredArray::read.
template <class T>
bool AnnDataReader::read_pieces(const Context& to, const StoredArray& d, T* out, std::int64_t rows,
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

namespace {

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

}  // namespace

/// Nothing if a value does not fit.
template <class V>
std::optional<Csr<V>> AnnDataReader::selected_sparse(const Node& node, const Array<std::int64_t>& offsets,
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
std::optional<Matrix<V>> AnnDataReader::selected_dense(const StoredArray& d, const Selection& rows,
                                                       const Selection& cols) {
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

/// Nothing here computes on 64-bit integers, and what was rounded would be written back as if it were not.
void AnnDataReader::inexact(const StoredArray& d) {
  d.fail<DTypeMismatch>("holds integers above 2^53 ({}), which a double cannot hold exactly", d.type.name);
}

MatrixElement AnnDataReader::element(const std::string& name) {
  const auto node = source_->root()->find(name);
  SCW_EXPECT(node != nullptr, source_->op(), "'{}' has no '{}'", source_->name(), name);
  MatrixElement m = matrix(*node);
  check_matrix(*node, m);
  return m.device() == to_.device ? std::move(m) : m.copy_to(to_, to_.device);
}

template <class V>
void AnnDataReader::check_counts(const Node& node, const V* values, std::int64_t n,
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
Csr<V> AnnDataReader::finish_sparse(const Node& node, bool by_column, bool keep_order, bool checked,
                                    std::int64_t n_rows, std::int64_t n_cols, Array<std::int64_t> indptr,
                                    Array<std::int32_t> indices, Array<V> values) {
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
void AnnDataReader::repair(const Node& node, bool by_column, bool keep_order, std::int64_t n_major,
                           std::int64_t n_minor, const Array<std::int64_t>& indptr, Array<std::int32_t>& indices,
                           Array<V>& values) {
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

std::int64_t AnnDataReader::longest_axis() const {
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

MatrixElement AnnDataReader::sparse(const Node& node, bool keep_order) {
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
    inexact(value_set);
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
  if (!read_pieces<double>(to, value_set, values.data(), piece_rows<double>(to, value_set, 1))) inexact(value_set);
  return finish(std::move(values));
}

MatrixElement AnnDataReader::dense(const StoredArray& d) {
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
    inexact(d);
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
  if (!read(x)) inexact(d);
  return finish(std::move(x));
}

MatrixElement AnnDataReader::matrix(const Node& node) {
  if (is_sparse(node)) return sparse(node);
  if (node.is_group) node.fail("is encoded as '{}' (expected a sparse or dense matrix)", encoding(node));
  if (options_.stream_matrices) {
    if (auto stream = stored_dense(ctx_, source_, node.array())) return MatrixElement(std::move(stream));
    not_streamed(node.path);
  }
  return dense(*node.array());
}
void AnnDataReader::check_matrix(const Node& node, const MatrixElement& m) {
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

}  // namespace scw::io
