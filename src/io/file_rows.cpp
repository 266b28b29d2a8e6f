#include "scwarp/io/file_rows.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <tuple>

#include "core/block_stream.hpp"
#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/index_check.hpp"
#include "io/pieces.hpp"
#include "io/stored_rows.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "file rows";
constexpr std::int64_t kRowGrain = 512;
constexpr std::int64_t kScanEntries = 1 << 24;   // values looked at in one go
constexpr std::int64_t kPieceEntries = 1 << 22;  // read at once where rows are picked
constexpr std::int64_t kGapEntries = 1 << 16;    // shorter gaps between picked rows are read and dropped

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

bool is_integer(const std::string& dtype) { return dtype.starts_with("int") || dtype.starts_with("uint"); }

enum class Order : std::uint8_t { unknown, sorted, unsorted };

}  // namespace

struct FileMatrix::Impl {
  Impl(std::string p, std::string e, StoredRows s) : path(std::move(p)), element(std::move(e)), stored(std::move(s)) {}
  std::string path, element;
  StoredRows stored;
  std::vector<std::int64_t> indptr;
  mutable std::atomic<int> fits_float{-1};
  mutable std::atomic<std::int64_t> passes[2]{};
  mutable std::atomic<Order> order{Order::unknown};  // of the column indices in all rows
};

FileMatrix::FileMatrix(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FileMatrix::~FileMatrix() = default;

std::shared_ptr<const FileMatrix> FileMatrix::open(const Context& ctx, const std::string& path,
                                                   const std::string& element) {
  const Context host = ctx.host();
  auto impl = std::make_unique<Impl>(path, element, open_rows(host, kOp, path, element));
  const StoredRows& s = impl->stored;
  if (s.indptr != nullptr) {
    auto& indptr = impl->indptr;
    indptr.resize(at(s.n_rows + 1));
    if (!s.indptr->read_numbers(host, indptr.data())) s.indptr->fail("holds values out of range for 64 bits");
    if (indptr[0] != 0) s.indptr->fail("starts at {} (expected 0)", indptr[0]);
    for (std::size_t i = 0; i + 1 < indptr.size(); ++i)
      if (indptr[i] > indptr[i + 1])
        s.indptr->fail("falls from {} to {} at position {} (expected rising)", indptr[i], indptr[i + 1], i + 1);
    for (const auto* const part : {s.indices.get(), s.data.get()})
      if (part->count != indptr.back()) part->fail("has {} entries (expected {})", part->count, indptr.back());
  }
  return std::shared_ptr<const FileMatrix>(new FileMatrix(std::move(impl)));
}

const std::string& FileMatrix::path() const { return impl_->path; }
const std::string& FileMatrix::element() const { return impl_->element; }
std::int64_t FileMatrix::n_rows() const { return impl_->stored.n_rows; }
std::int64_t FileMatrix::n_cols() const { return impl_->stored.n_cols; }
bool FileMatrix::is_sparse() const { return impl_->stored.indptr != nullptr; }
std::int64_t FileMatrix::n_entries() const {
  return is_sparse() ? impl_->indptr.back() : checked_mul(n_rows(), n_cols());
}
const std::string& FileMatrix::dtype() const { return impl_->stored.data->type.name; }
Span<const std::int64_t> FileMatrix::indptr() const {
  return {impl_->indptr.data(), static_cast<std::int64_t>(impl_->indptr.size())};
}

std::int64_t FileMatrix::n_passes(RowParts parts) const { return impl_->passes[parts == RowParts::all ? 0 : 1]; }

bool FileMatrix::fits_float(const Context& ctx) const {
  const std::string& type = dtype();
  if (type == "float64") return false;
  if (!is_integer(type) || type.ends_with("8") || type.ends_with("16")) return true;
  if (const int known = impl_->fits_float; known >= 0) return known != 0;
  const Context host = ctx.host();
  const std::int64_t rows = impl_->stored.data->rows();
  const std::int64_t width = is_sparse() ? 1 : std::max<std::int64_t>(1, n_cols());
  const std::int64_t step = std::max<std::int64_t>(1, kScanEntries / width);
  Array<float> values(host.workspace, checked_mul(std::min(step, rows), width), "values");
  bool fits = true;
  for (std::int64_t first = 0; fits && first < rows; first += step)
    fits = impl_->stored.data->read(host, first, std::min(step, rows - first), values.data());
  impl_->fits_float = fits ? 1 : 0;
  return fits;
}

namespace {

/// Rows of the file, read into host memory.
template <class View>
struct HostRows;

template <class V>
struct HostRows<CsrView<V>> {
  std::int64_t n_rows = 0, size = 0;
  std::int32_t n_cols = 0;
  std::vector<std::int64_t> indptr;
  Array<std::int32_t> indices;
  Array<V> values;
  bool has_indices = true;

  CsrView<V> view() {
    return {n_rows,
            n_cols,
            {indptr.data(), n_rows + 1},
            Span<const std::int32_t>(has_indices ? indices.data() : nullptr, has_indices ? size : 0),
            {values.data(), size}};
  }
};
template <class V>
struct HostRows<MatrixView<V>> {
  std::int64_t n_rows = 0, n_cols = 0;
  Array<V> values;
  MatrixView<V> view() { return {values.data(), n_rows, n_cols}; }
};

template <class T>
void make_room(const Context& ctx, Array<T>& a, std::int64_t n) {
  if (a.size() >= n) return;
  a = Array<T>();
  a = Array<T>(ctx.workspace, n, "rows of a file");
}

/// What a reading of rows needs to know. Rows are numbered as they are used; file_row() is where one is.
struct Request {
  const FileMatrix& matrix;
  const StoredRows& stored;
  const std::vector<std::int64_t>* picked;  // null: all
  const std::int64_t* indptr;               // of the rows in use; null for dense
  std::int64_t largest_rows = 0, largest_entries = 0;
  bool with_indices = true;
  std::atomic<bool>& unsorted;

  std::int64_t file_row(std::int64_t i) const { return picked == nullptr ? i : (*picked)[at(i)]; }
};

/// Checks and, where needed, sorts the column indices of rows [first, first + x.n_rows).
template <class V>
void canonical(const Context& ctx, const Request& r, std::int64_t first, const CsrView<V>& x, std::int32_t* indices) {
  std::atomic<bool> sorted_some{false};
  std::atomic<std::int64_t> bad{-1};  // any: the first is looked for when there is one
  const auto in_order = [&](std::int64_t i) {
    bool ok = true;
    for (std::int64_t p = x.indptr[i] + 1; p < x.indptr[i + 1]; ++p) ok &= indices[p - 1] < indices[p];
    return ok;
  };
  parallel_for(ctx, x.n_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::int64_t i = begin; i < end; ++i) {
      bool ok = true, inside = true;
      std::int32_t last = -1;
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p) {
        const std::int32_t j = indices[p];
        inside &= j >= 0 && j < x.n_cols;
        ok &= last < j;
        last = j;
      }
      if (!inside) bad = i;
      if (ok || !inside) continue;
      row.clear();
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p) row.emplace_back(indices[p], x.values[p]);
      std::stable_sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p)
        std::tie(indices[p], x.values[p]) = row[at(p - x.indptr[i])];
      sorted_some = true;
      if (!in_order(i)) bad = i;
    }
  });
  if (bad >= 0) {
    for (std::int64_t i = 0; i < x.n_rows; ++i)
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p) {
        const std::int32_t j = indices[p];
        const bool twice = p > x.indptr[i] && indices[p - 1] == j;
        if (!twice && j >= 0 && j < x.n_cols) continue;
        const std::string what = twice ? fmt::format("duplicate index {} in row {}", j, r.file_row(first + i))
                                       : fmt::format("index {} in row {} is out of range (expected 0 to {})", j,
                                                     r.file_row(first + i), x.n_cols - 1);
        detail::fail<DataError>(kOp, "'{}', object '{}': {}", r.matrix.path(), r.matrix.element(), what);
      }
  }
  if (sorted_some && !r.unsorted.exchange(true))
    ctx.info(fmt::format("{}: '{}', object '{}': indices are not sorted in every row; sorted while reading", kOp,
                         r.matrix.path(), r.matrix.element()));
}

/// Calls part(i, count, position) for runs of picked rows [i, i + count) whose gaps are short, and what of a run is to
/// be read at once: at most about kPieceEntries.
template <class Part>
void picked_parts(const Request& r, std::int64_t first, std::int64_t n, std::int64_t row_entries, const Part& part) {
  const auto offsets = r.matrix.indptr();
  const auto start = [&](std::int64_t file_row) {
    return offsets.empty() ? file_row * row_entries : offsets[file_row];
  };
  std::int64_t begin = first;
  for (std::int64_t i = first + 1; i <= first + n; ++i) {
    const bool ends = i == first + n || start(r.file_row(i)) - start(r.file_row(i - 1) + 1) > kGapEntries ||
                      start(r.file_row(i) + 1) - start(r.file_row(begin)) > kPieceEntries;
    if (!ends) continue;
    part(begin, i - begin);
    begin = i;
  }
}

/// Whoever asks for float was told by fits_float() what it does to large integers.
template <class V>
void check_fits(const Request& r, bool fits, const StoredArray& part, const V*) {
  if (fits) return;
  if (&part == r.stored.indices.get()) part.fail("holds values out of range for 32 bits");
  if (std::is_same_v<V, double>)
    part.fail<DTypeMismatch>("holds integers above 2^53 ({}), which a double cannot hold exactly: read the file whole",
                             part.type.name);
}

template <class V>
void read(const Context& ctx, const Request& r, std::int64_t first, std::int64_t n, HostRows<CsrView<V>>& out) {
  make_room(ctx, out.values, r.largest_entries);
  if (r.with_indices) make_room(ctx, out.indices, r.largest_entries);
  out.n_rows = n;
  out.n_cols = static_cast<std::int32_t>(r.matrix.n_cols());
  out.has_indices = r.with_indices;
  out.indptr.resize(at(n + 1));
  for (std::int64_t i = 0; i <= n; ++i) out.indptr[at(i)] = r.indptr[first + i] - r.indptr[first];
  out.size = out.indptr.back();
  const auto read_part = [&](const StoredArray& part, auto* to) {
    const auto offsets = r.matrix.indptr();
    if (r.picked == nullptr) return check_fits(r, part.read(ctx, offsets[first], out.size, to), part, to);
    using T = std::remove_pointer_t<decltype(to)>;
    Array<T> piece;
    picked_parts(r, first, n, 0, [&](std::int64_t i, std::int64_t count) {
      const std::int64_t begin = offsets[r.file_row(i)], end = offsets[r.file_row(i + count - 1) + 1];
      T* const target = to + out.indptr[at(i - first)];
      if (r.file_row(i + count - 1) - r.file_row(i) == count - 1)  // no gap
        return check_fits(r, part.read(ctx, begin, end - begin, target), part, target);
      make_room(ctx, piece, end - begin);
      check_fits(r, part.read(ctx, begin, end - begin, piece.data()), part, piece.data());
      for (std::int64_t k = i; k < i + count; ++k)
        std::copy(piece.data() + (offsets[r.file_row(k)] - begin), piece.data() + (offsets[r.file_row(k) + 1] - begin),
                  to + out.indptr[at(k - first)]);
    });
  };
  read_part(*r.stored.data, out.values.data());
  if (!r.with_indices) return;
  read_part(*r.stored.indices, out.indices.data());
  canonical(ctx, r, first, out.view(), out.indices.data());
}

template <class V>
void read(const Context& ctx, const Request& r, std::int64_t first, std::int64_t n, HostRows<MatrixView<V>>& out) {
  const std::int64_t cols = r.matrix.n_cols();
  make_room(ctx, out.values, checked_mul(r.largest_rows, cols));
  out.n_rows = n;
  out.n_cols = cols;
  const StoredArray& data = *r.stored.data;
  if (r.picked == nullptr) {
    check_fits(r, data.read(ctx, first, n, out.values.data()), data, out.values.data());
    return;
  }
  Array<V> piece;
  picked_parts(r, first, n, cols, [&](std::int64_t i, std::int64_t count) {
    const std::int64_t begin = r.file_row(i), rows = r.file_row(i + count - 1) + 1 - begin;
    V* const target = out.values.data() + (i - first) * cols;
    if (rows == count) {
      check_fits(r, data.read(ctx, begin, rows, target), data, target);
      return;
    }
    make_room(ctx, piece, checked_mul(rows, cols));
    check_fits(r, data.read(ctx, begin, rows, piece.data()), data, piece.data());
    for (std::int64_t k = 0; k < count; ++k)
      std::copy_n(piece.data() + (r.file_row(i + k) - begin) * cols, cols, target + k * cols);
  });
}

template <class V>
std::int64_t bytes_of_rows(const CsrView<V>*, const Request& r, std::int64_t first, std::int64_t last) {
  return detail::csr_bytes(r.indptr, first, last, sizeof(V));
}
template <class V>
std::int64_t bytes_of_rows(const MatrixView<V>*, const Request& r, std::int64_t first, std::int64_t last) {
  return (last - first) * r.matrix.n_cols() * std::int64_t{sizeof(V)};
}

template <class V>
detail::BlockRoom<CsrView<V>> make_device_room(const CsrView<V>*, const Context& ctx, const Request& r) {
  return {ctx, r.largest_rows, r.largest_entries, r.with_indices ? RowParts::all : RowParts::values};
}
template <class V>
detail::BlockRoom<MatrixView<V>> make_device_room(const MatrixView<V>*, const Context& ctx, const Request& r) {
  return {ctx, r.largest_rows, r.matrix.n_cols()};
}

constexpr std::int64_t kStraightBytes = 1 << 20;  // smaller copies wait longer for the bus than they take

/// Whether blocks can go from the file to the device of `ctx` piece by piece, and are large enough for it.
template <class V>
bool goes_straight(const CsrView<V>*, const Context& ctx, const Request& r) {
  return r.picked == nullptr && r.largest_entries * std::int64_t{sizeof(V)} > kStraightBytes &&
         fits_ring<V>(ctx, *r.stored.data, 1) &&
         (!r.with_indices || fits_ring<std::int32_t>(ctx, *r.stored.indices, 1));
}
template <class V>
bool goes_straight(const MatrixView<V>*, const Context& ctx, const Request& r) {
  return r.picked == nullptr && r.largest_rows * r.matrix.n_cols() * std::int64_t{sizeof(V)} > kStraightBytes &&
         fits_ring<V>(ctx, *r.stored.data, r.matrix.n_cols());
}

/// Rows [first, first + n) -> room. False, and the room is to be filled otherwise, if something is wrong with the
/// indices.
template <class V>
bool read_straight(const Context& ctx, const Request& r, std::int64_t first, std::int64_t n,
                   detail::BlockRoom<CsrView<V>>& room) {
  const CsrView<V> rows{n, static_cast<std::int32_t>(r.matrix.n_cols()), {r.indptr + first, n + 1}, {}, {}};
  const std::int64_t begin = rows.indptr[0], size = rows.indptr[n] - begin;
  bool clean = true;
  room.fill(ctx, rows, [&](std::int32_t* indices, V* values) {
    if (indices != nullptr) {
      const StoredArray& part = *r.stored.indices;
      const std::int64_t piece = piece_rows<std::int32_t>(ctx, part, 1);
      IndexCheck check(rows.indptr, rows.n_cols, piece);
      const auto look = [&](std::int64_t at, const std::int32_t* x, std::int64_t count) { check.look(at, x, count); };
      check_fits(r, read_in_pieces(ctx, part, begin, size, indices, piece, look), part, indices);
      clean = check.is_clean();
      if (!clean) return;
    }
    const StoredArray& part = *r.stored.data;
    check_fits(r, read_in_pieces(ctx, part, begin, size, values, piece_rows<V>(ctx, part, 1), [](auto...) {}), part,
               values);
  });
  return clean;
}
template <class V>
bool read_straight(const Context& ctx, const Request& r, std::int64_t first, std::int64_t n,
                   detail::BlockRoom<MatrixView<V>>& room) {
  const StoredArray& part = *r.stored.data;
  const std::int64_t cols = r.matrix.n_cols();
  room.fill(ctx, MatrixView<V>{nullptr, n, cols}, [&](V* values) {
    check_fits(r, read_in_pieces(ctx, part, first, n, values, piece_rows<V>(ctx, part, cols), [](auto...) {}), part,
               values);
  });
  return true;
}

template <class View>
void for_each_block(const Context& ctx, Request r, std::int64_t n_rows, std::int64_t block_rows,
                    const OwnedRowBlocks::OwnedBody& body) {
  const View* const tag = nullptr;
  const std::vector<std::int64_t> bounds = detail::block_boundaries(
      n_rows, block_rows, detail::target_block_bytes(ctx),
      [&](std::int64_t first, std::int64_t last) { return bytes_of_rows(tag, r, first, last); });
  const std::size_t blocks = bounds.size() - 1;
  for (std::size_t b = 0; b < blocks; ++b) {
    r.largest_rows = std::max(r.largest_rows, bounds[b + 1] - bounds[b]);
    if (r.indptr != nullptr)
      r.largest_entries = std::max(r.largest_entries, r.indptr[bounds[b + 1]] - r.indptr[bounds[b]]);
  }
  HostRows<View> rows;
  if (ctx.device.type == DeviceType::cpu) {
    // In turns: both have all threads.
    for (std::size_t b = 0; b < blocks; ++b) {
      ctx.check_cancelled(kOp);
      read(ctx, r, bounds[b], bounds[b + 1] - bounds[b], rows);
      body(bounds[b], rows.view());
    }
    return;
  }
  using Room = detail::BlockRoom<View>;
  bool straight = goes_straight(tag, ctx, r);  // until a block is not: the next ones will hardly be better
  detail::stream_blocks<Room>(
      ctx, blocks, [&] { return make_device_room(tag, ctx, r); },
      [&](const Context& uploads, std::size_t b, Room& room) {  // one block after the other
        const std::int64_t first = bounds[b], n = bounds[b + 1] - first;
        straight = straight && read_straight(uploads, r, first, n, room);
        if (straight) return;
        read(uploads.host(), r, first, n, rows);
        room.fill(uploads, rows.view());
      },
      [&](std::size_t b, Room& room) { body(bounds[b], room.view()); });
}

}  // namespace

FileRows::FileRows(std::shared_ptr<const FileMatrix> matrix, FileRowsOptions options)
    : matrix_(std::move(matrix)), options_(std::move(options)) {
  SCW_EXPECT(options_.block_rows >= 0, kOp, "block_rows must not be negative (got {})", options_.block_rows);
  if (options_.all_rows) return;
  const auto& rows = options_.rows;
  for (std::size_t i = 0; i < rows.size(); ++i)
    SCW_EXPECT(rows[i] > (i == 0 ? -1 : rows[i - 1]) && rows[i] < matrix_->n_rows(), kOp,
               "rows must rise and be below {} (got {} at position {})", matrix_->n_rows(), rows[i], i);
  if (!matrix_->is_sparse()) return;
  const auto offsets = matrix_->indptr();
  indptr_.resize(rows.size() + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) indptr_[i + 1] = indptr_[i] + offsets[rows[i] + 1] - offsets[rows[i]];
}

std::int64_t FileRows::n_rows() const {
  return options_.all_rows ? matrix_->n_rows() : static_cast<std::int64_t>(options_.rows.size());
}
std::int64_t FileRows::n_cols() const { return matrix_->n_cols(); }
bool FileRows::is_sparse() const { return matrix_->is_sparse(); }
bool FileRows::is_double(const Context& ctx) const { return options_.as_double || !matrix_->fits_float(ctx); }

void FileRows::for_each_owned(const Context& ctx, RowParts parts, const OwnedBody& body) const {
  const auto& impl = *matrix_->impl_;
  const bool as_double = is_double(ctx);
  std::atomic<bool> unsorted{false};
  Request r{.matrix = *matrix_,
            .stored = impl.stored,
            .picked = options_.all_rows ? nullptr : &options_.rows,
            .indptr = nullptr,
            .unsorted = unsorted};
  const auto run = [&]<class View>(const View*) { for_each_block<View>(ctx, r, n_rows(), options_.block_rows, body); };
  if (!is_sparse()) {
    ++impl.passes[0];
    return as_double ? run(static_cast<const MatrixView<double>*>(nullptr))
                     : run(static_cast<const MatrixView<float>*>(nullptr));
  }
  // Sums along a row depend on its order: values alone only where that is known to be the right one.
  r.with_indices = parts == RowParts::all || impl.order != Order::sorted;
  r.indptr = options_.all_rows ? impl.indptr.data() : indptr_.data();
  ++impl.passes[r.with_indices ? 0 : 1];
  as_double ? run(static_cast<const CsrView<double>*>(nullptr)) : run(static_cast<const CsrView<float>*>(nullptr));
  if (!r.with_indices) return;
  if (unsorted)
    impl.order = Order::unsorted;
  else if (options_.all_rows && impl.order == Order::unknown)
    impl.order = Order::sorted;
}

namespace {

/// Blocks of a matrix, kept until all are there.
template <class View>
class Collected;

template <class V>
class Collected<CsrView<const V>> {
 public:
  Collected(const Context& ctx, const RowBlocks& source) : ctx_(ctx) {
    out_.n_rows = source.n_rows();
    out_.n_cols = static_cast<std::int32_t>(source.n_cols());
    out_.indptr = Array<std::int64_t>(ctx.memory, out_.n_rows + 1, "indptr");
    out_.indptr[0] = 0;
  }
  void add(std::int64_t first, const CsrView<const V>& x) {
    const std::int64_t begin = x.indptr[0], n = x.indptr[x.n_rows] - begin;
    for (std::int64_t i = 0; i < x.n_rows; ++i)
      out_.indptr[first + i + 1] = out_.indptr[first] + x.indptr[i + 1] - begin;
    parts_.emplace_back(Array<std::int32_t>(ctx_.memory, n, "indices"), Array<V>(ctx_.memory, n, "values"));
    copy(x.indices.data + begin, parts_.back().first, 0, n);
    copy(x.values.data + begin, parts_.back().second, 0, n);
  }
  Csr<V> finish() {
    if (parts_.size() == 1) {
      out_.indices = std::move(parts_[0].first);
      out_.values = std::move(parts_[0].second);
      return std::move(out_);
    }
    const std::int64_t nnz = out_.indptr[out_.n_rows];
    out_.indices = Array<std::int32_t>(ctx_.memory, nnz, "indices");
    out_.values = Array<V>(ctx_.memory, nnz, "values");
    std::int64_t at = 0;
    for (auto& [indices, values] : parts_) {
      copy(indices.data(), out_.indices, at, indices.size());
      copy(values.data(), out_.values, at, values.size());
      at += values.size();
      indices = {};
      values = {};
    }
    return std::move(out_);
  }

 private:
  template <class T>
  void copy(const T* from, Array<T>& to, std::int64_t at, std::int64_t n) const {
    parallel_for(ctx_, n, 1 << 18, [&](std::int64_t begin, std::int64_t end) {
      std::copy(from + begin, from + end, to.data() + at + begin);
    });
  }

  const Context& ctx_;
  Csr<V> out_;
  std::vector<std::pair<Array<std::int32_t>, Array<V>>> parts_;
};

template <class V>
class Collected<MatrixView<const V>> {
 public:
  Collected(const Context& ctx, const RowBlocks& source) : out_(ctx.memory, source.n_rows(), source.n_cols()) {}
  void add(std::int64_t first, const MatrixView<const V>& x) {
    for (std::int64_t i = 0; i < x.n_rows; ++i) std::copy_n(x.row(i), x.n_cols, out_.view().row(first + i));
  }
  Matrix<V> finish() { return std::move(out_); }

 private:
  Matrix<V> out_;
};

}  // namespace

AnyMatrix load_rows(const Context& ctx, const RowBlocks& rows) {
  SCW_EXPECT(ctx.device.type == DeviceType::cpu, kOp, "load_rows needs a CPU context (got {})", to_string(ctx.device));
  std::variant<std::monostate, Collected<CsrView<const float>>, Collected<CsrView<const double>>,
               Collected<MatrixView<const float>>, Collected<MatrixView<const double>>>
      all;
  rows.for_each(ctx, [&](std::int64_t first, const AnyMatrixView& block) {
    std::visit(
        [&]<class View>(const View& x) {
          if (std::holds_alternative<std::monostate>(all)) all.emplace<Collected<View>>(ctx, rows);
          std::get<Collected<View>>(all).add(first, x);
        },
        block);
  });
  if (std::holds_alternative<std::monostate>(all)) {  // no rows
    if (rows.is_sparse())
      all.emplace<Collected<CsrView<const float>>>(ctx, rows);
    else
      all.emplace<Collected<MatrixView<const float>>>(ctx, rows);
  }
  return std::visit(
      []<class C>(C& c) -> AnyMatrix {
        if constexpr (std::is_same_v<C, std::monostate>)
          return {};
        else
          return c.finish();
      },
      all);
}

}  // namespace scw::io
