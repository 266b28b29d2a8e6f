#include "io/streams.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <list>
#include <mutex>
#include <numeric>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/buffer.hpp"
#include "io/number_types.hpp"
#include "io/numbers.hpp"

namespace scw::io {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::size_t size_of(const std::string& dtype) {
  std::size_t size = 0;
  with_type(dtype, [&]<class T>(T) { size = sizeof(T); });
  return size;
}

/// What StoredArray::read gives that holds every T.
template <class T>
struct Carrier {
  using type = std::int32_t;
};
template <>
struct Carrier<float> {
  using type = float;
};
template <>
struct Carrier<double> {
  using type = double;
};
template <>
struct Carrier<std::uint8_t> {
  using type = std::uint8_t;
};
template <>
struct Carrier<std::uint32_t> {
  using type = std::int64_t;
};
template <>
struct Carrier<std::int64_t> {
  using type = std::int64_t;
};
template <>
struct Carrier<std::uint64_t> {
  using type = std::int64_t;
};

/// Large chunks, unpacked once for several readers of parts of them. A reader whose chunk another one is unpacking
/// unpacks one of those after it meanwhile.
class Windows {
 public:
  Windows(FillRange load, std::int64_t rows, std::int64_t total, std::size_t row_bytes, int n_threads)
      : load_(std::move(load)), rows_(rows), total_(total), row_bytes_(row_bytes) {
    // Every thread has one, and some more lie ahead.
    constexpr std::size_t kMostBytes = 512 << 20;
    const std::size_t fitting = kMostBytes / std::max<std::size_t>(1, at(rows) * row_bytes);
    keep_ = std::clamp<std::size_t>(fitting, 2, 2 * at(n_threads) + 2);
    ahead_ = static_cast<std::int64_t>(keep_ / 2);
  }

  void read(std::int64_t first, std::int64_t n, std::byte* out) {
    while (n > 0) {
      const auto window = get(first / rows_);
      const std::int64_t skip = first % rows_, here = std::min(n, window->n - skip);
      std::memcpy(out, window->bytes.data() + at(skip) * row_bytes_, at(here) * row_bytes_);
      taken(*window, here);
      out += at(here) * row_bytes_;
      first += here;
      n -= here;
    }
  }

 private:
  enum class State : std::uint8_t { untouched, loading, ready };
  struct Window {
    std::int64_t number = 0, n = 0;
    std::int64_t taken = 0;
    State state = State::untouched;
    Buffer bytes;
  };
  using Shared = std::shared_ptr<Window>;

  /// The window, used last; made if it is not there.
  Shared touch(std::int64_t number) {
    const auto it = std::find_if(recent_.begin(), recent_.end(), [&](const auto& x) { return x->number == number; });
    if (it != recent_.end()) {
      recent_.splice(recent_.begin(), recent_, it);
    } else {
      if (recent_.size() >= keep_) recent_.pop_back();
      auto w = std::make_shared<Window>();
      w->number = number;
      w->n = std::min(rows_, total_ - number * rows_);
      recent_.push_front(std::move(w));
    }
    return recent_.front();
  }
  /// The first of those after `number` that nobody has begun; null if there is none.
  Shared next(std::int64_t number) {
    for (std::int64_t k = number + 1; k <= number + ahead_ && k * rows_ < total_; ++k) {
      const auto it = std::find_if(recent_.begin(), recent_.end(), [&](const auto& x) { return x->number == k; });
      if (it == recent_.end()) return touch(k);
    }
    return nullptr;
  }
  void load(std::unique_lock<std::mutex>& lock, const Shared& w) {
    w->state = State::loading;
    lock.unlock();
    Buffer bytes;
    try {
      bytes.resize(at(w->n) * row_bytes_);
      load_(w->number * rows_, w->n, bytes.data());
    } catch (...) {
      lock.lock();
      w->state = State::untouched;  // whoever waits for it tries, and fails, as well
      changed_.notify_all();
      throw;
    }
    lock.lock();
    w->bytes = std::move(bytes);
    w->state = State::ready;
    changed_.notify_all();
  }
  /// Most windows are wanted once: what was read to its end makes room.
  void taken(Window& w, std::int64_t n) {
    const std::lock_guard lock(mutex_);
    w.taken += n;
    if (w.taken >= w.n) recent_.remove_if([&](const auto& x) { return x.get() == &w; });
  }
  Shared get(std::int64_t number) {
    std::unique_lock lock(mutex_);
    Shared w = touch(number);
    while (w->state != State::ready) {
      if (w->state == State::untouched) {
        load(lock, w);
      } else if (const Shared other = next(number)) {
        load(lock, other);
      } else {
        changed_.wait(lock);
      }
    }
    return w;
  }

  FillRange load_;
  std::int64_t rows_, total_, ahead_ = 1;
  std::size_t row_bytes_, keep_ = 2;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Shared> recent_;
};

}  // namespace

FillRange stored_range(const Context& ctx, std::shared_ptr<const Store> source, std::unique_ptr<StoredArray> array) {
  if (!array->is_concurrent()) return {};
  // Closing it may need the store to itself.
  std::shared_ptr<const StoredArray> stored(array.release(), [source](const StoredArray* a) {
    const auto session = source->session();
    delete a;
  });
  const Context one = ctx;
  const std::int64_t total = stored->rows();
  const std::int64_t width = total == 0 ? 1 : stored->count / total;
  FillRange out;
  // After a pass over all rows it may be long until the next, or for ever.
  const auto left = std::make_shared<std::atomic<std::int64_t>>(total);
  const auto done = [stored, total, left](std::int64_t n) {
    if (left->fetch_sub(n) - n > 0) return;
    *left = total;
    stored->release();
  };
  with_type(stored->type.name, [&]<class T>(T) {
    using C = typename Carrier<T>::type;
    out = [one, stored, width, done](std::int64_t first, std::int64_t n, std::byte* to) {
      if constexpr (std::is_same_v<C, T>) {
        stored->read(one, first, n, reinterpret_cast<T*>(to));
      } else {
        std::vector<C> values(at(n * width));
        if (!stored->read(one, first, n, values.data()))
          stored->fail<DataError>("holds values over 2^63 in rows {} to {}", first, first + n - 1);
        auto* typed = reinterpret_cast<T*>(to);
        for (std::size_t i = 0; i < values.size(); ++i) typed[i] = static_cast<T>(values[i]);
      }
      done(n);
    };
    // A chunk that is larger than what is asked for at a time would be unpacked again and again.
    constexpr std::int64_t kLarge = 1 << 20;
    const std::int64_t rows = stored->chunk_rows();
    const std::size_t row_bytes = at(width) * sizeof(T);
    if (rows > 1 && rows * static_cast<std::int64_t>(row_bytes) >= kLarge) {
      auto windows = std::make_shared<Windows>(std::move(out), rows, total, row_bytes, ctx.n_threads);
      out = [windows](std::int64_t first, std::int64_t n, std::byte* to) { windows->read(first, n, to); };
    }
  });
  return out;
}

Stream stored_sparse(const Context& ctx, const std::shared_ptr<const Store>& source, StoredLayout layout,
                     std::int64_t n_rows, std::int64_t n_cols, std::unique_ptr<StoredArray> offsets,
                     std::unique_ptr<StoredArray> indices, std::unique_ptr<StoredArray> values) {
  auto m = std::make_shared<MatrixStream>();
  m->layout = layout;
  m->n_rows = n_rows;
  m->n_cols = n_cols;
  m->dtype = values->type.name;
  const std::int64_t n_major = layout == StoredLayout::csc ? n_cols : n_rows;
  const std::int64_t n_minor = layout == StoredLayout::csc ? n_rows : n_cols;
  auto indptr = std::make_shared<std::vector<std::int64_t>>(at(offsets->count));
  if (offsets->dims.size() != 1 || offsets->count != n_major + 1)
    offsets->fail("has {} entries (expected {})", offsets->count, n_major + 1);
  if (!offsets->read_numbers(ctx, indptr->data())) offsets->fail("holds values out of range for 64 bits");
  if (indptr->front() != 0) offsets->fail("starts at {} (expected 0)", indptr->front());
  if (const auto fall = std::adjacent_find(indptr->begin(), indptr->end(), std::greater<>()); fall != indptr->end())
    offsets->fail("falls from {} to {} at position {} (expected rising)", *fall, *(fall + 1),
                  fall - indptr->begin() + 1);
  m->nnz = indptr->back();
  for (const auto* part : {indices.get(), values.get()})
    if (part->dims.size() != 1 || part->count != m->nnz)
      part->fail("has {} entries (expected {})", part->count, m->nnz);
  if (indices->type.kind != Kind::integer) indices->fail("is of type {} (expected integers)", indices->type.name);
  if (!indices->is_concurrent()) return nullptr;
  m->values = stored_range(ctx, source, std::move(values));
  if (!m->values) return nullptr;
  m->indptr = [indptr](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, indptr->data() + first, at(n) * sizeof(std::int64_t));
  };
  // 64-bit indices are narrowed on the way.
  const std::string path = indices->path;
  const bool wide = indices->type.size == 8;
  FillRange raw = stored_range(ctx, source, std::move(indices));
  if (!raw) return nullptr;
  m->indices = [raw, wide, n_minor, path, source](std::int64_t first, std::int64_t n, std::byte* bytes) {
    auto* out = reinterpret_cast<std::int32_t*>(bytes);
    bool ok = true;
    if (wide) {
      std::vector<std::int64_t> values64(at(n));
      raw(first, n, reinterpret_cast<std::byte*>(values64.data()));
      for (std::int64_t i = 0; i < n; ++i) {
        ok &= values64[at(i)] >= 0 && values64[at(i)] < n_minor;
        out[i] = static_cast<std::int32_t>(values64[at(i)]);
      }
    } else {
      raw(first, n, bytes);
      for (std::int64_t i = 0; i < n; ++i) ok &= out[i] >= 0 && out[i] < n_minor;
    }
    if (!ok)
      source->fail<DataError>(path, "an index between positions {} and {} is out of range (expected 0 to {})", first,
                              first + n - 1, n_minor - 1);
  };
  if (m->dtype.empty()) return nullptr;
  return m;
}

Stream stored_dense(const Context& ctx, const std::shared_ptr<const Store>& source,
                    std::unique_ptr<StoredArray> values) {
  auto m = std::make_shared<MatrixStream>();
  m->layout = StoredLayout::dense;
  if (values->dims.size() != 2) values->fail("has {} dimensions (expected 2)", values->dims.size());
  m->n_rows = values->dims[0];
  m->n_cols = values->dims[1];
  m->dtype = values->type.name;
  m->values = stored_range(ctx, source, std::move(values));
  return m->values ? m : nullptr;
}

Stream memory_stream(MatrixElement element) {
  auto m = std::make_shared<MatrixStream>();
  m->n_rows = element.n_rows();
  m->n_cols = element.n_cols();
  const auto keep = std::make_shared<MatrixElement>(std::move(element));
  const auto range = [keep]<class T>(const T* data, std::int64_t width) -> FillRange {
    return [keep, data, width](std::int64_t first, std::int64_t n, std::byte* out) {
      std::memcpy(out, data + first * width, at(n * width) * sizeof(T));
    };
  };
  std::visit(
      [&]<class M>(const M& x) {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>) {
          m->layout = StoredLayout::csr;
          m->nnz = x.values.size();
          m->dtype = std::is_same_v<M, Csr<float>> ? "float32" : "float64";
          m->values = range(x.values.data(), 1);
          m->indices = range(x.indices.data(), 1);
          m->indptr = range(x.indptr.data(), 1);
        } else {
          m->layout = StoredLayout::dense;
          m->dtype = std::is_same_v<M, Matrix<float>> ? "float32" : "float64";
          m->values = range(x.data.data(), x.n_cols);
        }
      },
      keep->data);
  return m;
}

namespace {

/// Values of `from` as numbers of `to`.
void convert(const std::string& from, const std::byte* in, const std::string& to, std::byte* out, std::int64_t n) {
  with_type(from, [&]<class A>(A) {
    with_type(to, [&]<class B>(B) {
      const auto* source = reinterpret_cast<const A*>(in);
      auto* target = reinterpret_cast<B*>(out);
      for (std::int64_t i = 0; i < n; ++i) target[i] = static_cast<B>(source[i]);
    });
  });
}

}  // namespace

Stream cast(Stream m, const std::string& dtype) {
  if (m->dtype == dtype || size_of(dtype) == 0) return m;
  auto out = std::make_shared<MatrixStream>(*m);
  out->dtype = dtype;
  const std::int64_t width = m->layout == StoredLayout::dense ? m->n_cols : 1;
  out->values = [m, dtype, width](std::int64_t first, std::int64_t n, std::byte* to) {
    std::vector<std::byte> raw(at(n * width) * size_of(m->dtype));
    m->values(first, n, raw.data());
    convert(m->dtype, raw.data(), dtype, to, n * width);
  };
  return out;
}

std::string common_dtype(const std::string& a, const std::string& b) {
  if (a == b) return a;
  if (a == "bool") return b;
  if (b == "bool") return a;
  const auto is_float = [](const std::string& t) { return t.starts_with("float"); };
  const auto is_signed = [](const std::string& t) { return t.starts_with("int"); };
  const std::size_t sa = size_of(a), sb = size_of(b);
  if (is_float(a) && is_float(b)) return sa > sb ? a : b;
  if (is_float(a) || is_float(b)) {
    const std::size_t whole = is_float(a) ? sb : sa, real = is_float(a) ? sa : sb;
    if (real == 0 && whole <= 1) return "float16";
    return whole >= 4 || real == 8 ? "float64" : "float32";
  }
  if (is_signed(a) == is_signed(b)) return sa > sb ? a : b;
  const std::size_t with = is_signed(a) ? sa : sb, without = is_signed(a) ? sb : sa;
  if (with > without) return is_signed(a) ? a : b;
  return without == 8 ? "float64" : fmt::format("int{}", without * 16);
}

std::string with_fill(const std::string& dtype, double fill) {
  if (dtype.starts_with("float")) {
    const bool fits = !std::isfinite(fill) || std::abs(fill) <= std::numeric_limits<float>::max();
    return dtype == "float32" && !fits ? "float64" : dtype;
  }
  // The ends of the 64-bit types are not exact as doubles: 2^63 and 2^64 are the first values beyond.
  if (fill != std::trunc(fill) || fill < -0x1p63 || fill >= 0x1p64) return "float64";
  bool holds = dtype == "bool" && (fill == 0 || fill == 1);
  if (dtype != "bool")
    with_type(dtype, [&]<class T>(T) {
      if constexpr (std::is_integral_v<T>) {
        const double end = std::ldexp(1.0, std::numeric_limits<T>::digits);
        holds = fill < end && fill >= (std::is_signed_v<T> ? -end : 0.0);
      }
    });
  if (holds) return dtype;
  // The smallest type of the number, with the values' own; int64 where NumPy has no integer type for both.
  const char* of_fill = fill >= 0x1p32    ? "uint64"
                        : fill >= 0x1p16  ? "uint32"
                        : fill >= 0x1p8   ? "uint16"
                        : fill >= 0       ? "uint8"
                        : fill >= -0x1p7  ? "int8"
                        : fill >= -0x1p15 ? "int16"
                        : fill >= -0x1p31 ? "int32"
                                          : "int64";
  const std::string both = common_dtype(dtype, of_fill);
  return both == "float64" && dtype != "uint64" && fill < 0x1p63 ? "int64" : both;
}

namespace {

/// One part of a stack, with its rows' offsets.
struct Part {
  StackedPart in;
  std::int64_t first_row = 0;
  std::vector<std::int64_t> indptr;
  bool drops = false, reorders = false;
  bool lacks = false;  // columns of the result
};

struct Stack {
  std::string dtype;
  std::size_t element = 0;
  std::int64_t n_cols = 0;
  double missing = 0;
  std::vector<Part> parts;
  std::vector<std::int64_t> indptr;  // of the result

  const Part& part_of(std::int64_t row) const {
    const auto it = std::upper_bound(parts.begin(), parts.end(), row,
                                     [](std::int64_t r, const Part& p) { return r < p.first_row; });
    return *std::prev(it);
  }

  /// body(part, first row in it, rows, position of the first in the result): what overlaps entries [first, first + n).
  template <class F>
  void overlapping(std::int64_t first, std::int64_t n, F&& body) const {
    auto row = std::upper_bound(indptr.begin(), indptr.end(), first) - indptr.begin() - 1;
    const std::int64_t end = std::lower_bound(indptr.begin(), indptr.end(), first + n) - indptr.begin();
    while (row < end) {
      const Part& p = part_of(row);
      const std::int64_t rows = std::min(end, p.first_row + p.in.matrix->n_rows) - row;
      if (rows > 0) body(p, row - p.first_row, rows, indptr[at(row)]);
      row += std::max<std::int64_t>(rows, 1);
    }
  }

  /// Indices (and the places of the values among those read) of entries [first, first + n) of the result.
  void entries(std::int64_t first, std::int64_t n, bool want_values, std::byte* out) const {
    overlapping(first, n, [&](const Part& p, std::int64_t row, std::int64_t rows, std::int64_t position) {
      const MatrixStream& m = *p.in.matrix;
      const std::int64_t begin = p.indptr[at(row)], count = p.indptr[at(row + rows)] - begin;
      const std::int64_t from = std::max(first, position);
      const std::size_t size = want_values ? element : sizeof(std::int32_t);
      if (!p.drops && !p.reorders) {
        // Entry by entry as in the part; only columns are renamed.
        const std::int64_t skip = from - position, here = std::min(first + n, position + count) - from;
        std::byte* to = out + at(from - first) * size;
        if (want_values) {
          if (m.dtype == dtype) return m.values(begin + skip, here, to);
          std::vector<std::byte> values(at(here) * size_of(m.dtype));
          m.values(begin + skip, here, values.data());
          return convert(m.dtype, values.data(), dtype, to, here);
        }
        m.indices(begin + skip, here, to);
        if (!p.in.columns.empty()) {
          auto* columns = reinterpret_cast<std::int32_t*>(to);
          for (std::int64_t i = 0; i < here; ++i) columns[i] = p.in.columns[at(columns[i])];
        }
        return;
      }
      std::vector<std::int32_t> indices(at(count));
      m.indices(begin, count, reinterpret_cast<std::byte*>(indices.data()));
      std::vector<std::byte> values;
      if (want_values) {
        values.resize(at(count) * element);
        if (m.dtype == dtype) {
          m.values(begin, count, values.data());
        } else {
          std::vector<std::byte> raw(at(count) * size_of(m.dtype));
          m.values(begin, count, raw.data());
          convert(m.dtype, raw.data(), dtype, values.data(), count);
        }
      }
      std::vector<std::pair<std::int32_t, std::int64_t>> kept;
      std::int64_t q = position;
      for (std::int64_t i = row; i < row + rows; ++i) {
        kept.clear();
        for (std::int64_t k = p.indptr[at(i)] - begin; k < p.indptr[at(i + 1)] - begin; ++k)
          if (const std::int32_t c = p.in.columns[at(indices[at(k)])]; c >= 0) kept.emplace_back(c, k);
        if (p.reorders) std::sort(kept.begin(), kept.end());
        for (const auto& [column, k] : kept) {
          if (q >= first && q < first + n) {
            std::byte* to = out + at(q - first) * size;
            if (want_values)
              std::memcpy(to, values.data() + at(k) * element, element);
            else
              std::memcpy(to, &column, sizeof column);
          }
          ++q;
        }
      }
    });
  }

  void rows(std::int64_t first, std::int64_t n, std::byte* out) const {
    while (n > 0) {
      const Part& p = part_of(first);
      const MatrixStream& m = *p.in.matrix;
      const std::int64_t row = first - p.first_row, here = std::min(n, m.n_rows - row);
      const bool same = p.in.columns.empty();
      if (same && m.dtype == dtype) {
        m.values(row, here, out);
      } else {
        std::vector<std::byte> raw(at(here * m.n_cols) * size_of(m.dtype));
        m.values(row, here, raw.data());
        with_type(m.dtype, [&]<class A>(A) {
          with_type(dtype, [&]<class B>(B) {
            const auto* in = reinterpret_cast<const A*>(raw.data());
            auto* to = reinterpret_cast<B*>(out);
            // Where every column has a place nothing is filled, and the type may be one that cannot hold it.
            if (p.lacks) std::fill_n(to, here * n_cols, static_cast<B>(missing));
            for (std::int64_t i = 0; i < here; ++i)
              for (std::int64_t j = 0; j < m.n_cols; ++j) {
                const std::int64_t c = same ? j : p.in.columns[at(j)];
                if (c >= 0) to[i * n_cols + c] = static_cast<B>(in[i * m.n_cols + j]);
              }
          });
        });
      }
      out += at(here * n_cols) * element;
      first += here;
      n -= here;
    }
  }
};

}  // namespace

Stream stack_rows(const Context& ctx, const char* op, std::vector<StackedPart> parts, std::int64_t n_cols,
                  double missing) {
  SCW_EXPECT(!parts.empty(), op, "there is nothing to put together");
  auto s = std::make_shared<Stack>();
  auto m = std::make_shared<MatrixStream>();
  s->n_cols = n_cols;
  s->missing = missing;
  m->layout = parts[0].matrix->layout;
  for (auto& in : parts) {
    SCW_ASSERT(in.matrix->layout == m->layout && m->layout != StoredLayout::csc);
    SCW_EXPECT_AS(NotSupported, size_of(in.matrix->dtype) > 0, op, "values of type {} cannot be put together",
                  in.matrix->dtype);
    Part p;
    p.first_row = m->n_rows;
    m->n_rows += in.matrix->n_rows;
    p.drops = std::find(in.columns.begin(), in.columns.end(), -1) != in.columns.end();
    std::int32_t last = -1;
    for (const std::int32_t c : in.columns) {
      if (c < 0) continue;
      p.reorders = p.reorders || c < last;
      last = c;
    }
    const auto kept = in.columns.empty()
                          ? in.matrix->n_cols
                          : std::count_if(in.columns.begin(), in.columns.end(), [](auto c) { return c >= 0; });
    p.lacks = kept < n_cols;
    const bool fills = m->layout == StoredLayout::dense && p.lacks;
    const std::string dtype = fills ? with_fill(in.matrix->dtype, missing) : in.matrix->dtype;
    s->dtype = s->parts.empty() ? dtype : common_dtype(s->dtype, dtype);
    p.in = std::move(in);
    s->parts.push_back(std::move(p));
  }
  s->element = size_of(s->dtype);
  m->n_cols = n_cols;
  m->dtype = s->dtype;
  if (m->layout == StoredLayout::dense) {
    m->values = [s](std::int64_t first, std::int64_t n, std::byte* out) { s->rows(first, n, out); };
    return m;
  }
  s->indptr.assign(at(m->n_rows + 1), 0);
  for (Part& p : s->parts) {
    const MatrixStream& x = *p.in.matrix;
    p.indptr.resize(at(x.n_rows + 1));
    x.indptr(0, x.n_rows + 1, reinterpret_cast<std::byte*>(p.indptr.data()));
    std::int64_t* counts = s->indptr.data() + p.first_row + 1;
    if (!p.drops) {
      for (std::int64_t i = 0; i < x.n_rows; ++i) counts[i] = p.indptr[at(i + 1)] - p.indptr[at(i)];
      continue;
    }
    // What stays is only known by looking.
    constexpr std::int64_t kRows = 1024;
    parallel_for(ctx, x.n_rows, kRows, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t offset = p.indptr[at(begin)], count = p.indptr[at(end)] - offset;
      std::vector<std::int32_t> indices(at(count));
      x.indices(offset, count, reinterpret_cast<std::byte*>(indices.data()));
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t k = p.indptr[at(i)] - offset; k < p.indptr[at(i + 1)] - offset; ++k)
          counts[i] += p.in.columns[at(indices[at(k)])] >= 0 ? 1 : 0;
    });
  }
  std::partial_sum(s->indptr.begin(), s->indptr.end(), s->indptr.begin());
  m->nnz = s->indptr.back();
  m->indptr = [s](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, s->indptr.data() + first, at(n) * sizeof(std::int64_t));
  };
  m->indices = [s](std::int64_t first, std::int64_t n, std::byte* out) { s->entries(first, n, false, out); };
  m->values = [s](std::int64_t first, std::int64_t n, std::byte* out) { s->entries(first, n, true, out); };
  return m;
}

namespace {

/// What load_rows takes: a block is some rows that are read together.
struct Picked {
  const MatrixStream& m;
  std::vector<std::int64_t> indptr, rows;                   // of all rows; those kept
  std::vector<std::int32_t> columns;                        // new column of each, -1: dropped; empty: all stay
  std::vector<std::pair<std::size_t, std::size_t>> blocks;  // in rows

  Picked(const MatrixStream& stream, Span<const std::uint8_t> row_mask, Span<const std::uint8_t> col_mask)
      : m(stream), indptr(at(stream.n_rows + 1)) {
    m.indptr(0, m.n_rows + 1, reinterpret_cast<std::byte*>(indptr.data()));
    for (std::int64_t i = 0; i < m.n_rows; ++i)
      if (row_mask.empty() || row_mask[i] != 0) rows.push_back(i);
    std::int32_t n = 0;
    for (const std::uint8_t keep : col_mask) columns.push_back(keep != 0 ? n++ : -1);
    n_columns = col_mask.empty() ? static_cast<std::int32_t>(m.n_cols) : n;
    // Rows that lie close together are read together, with what is between them.
    constexpr std::int64_t kEntries = 1 << 20, kGap = 1 << 16;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const bool fits = !blocks.empty() &&
                        indptr[at(rows[r] + 1)] - indptr[at(rows[blocks.back().first])] <= kEntries &&
                        indptr[at(rows[r])] - indptr[at(rows[r - 1] + 1)] <= kGap;
      if (fits)
        blocks.back().second = r + 1;
      else
        blocks.emplace_back(r, r + 1);
    }
  }
  std::int64_t first(std::size_t b) const { return indptr[at(rows[blocks[b].first])]; }
  std::int64_t count(std::size_t b) const { return indptr[at(rows[blocks[b].second - 1] + 1)] - first(b); }
  std::vector<std::int32_t> indices(std::size_t b) const {
    std::vector<std::int32_t> out(at(count(b)));
    m.indices(first(b), count(b), reinterpret_cast<std::byte*>(out.data()));
    return out;
  }
  std::int32_t n_columns = 0;
};

template <class V>
std::optional<Csr<V>> load_rows(const Context& ctx, const char* op, const Picked& p) {
  Csr<V> x;
  x.n_rows = static_cast<std::int64_t>(p.rows.size());
  x.n_cols = p.n_columns;
  x.indptr = Array<std::int64_t>(ctx.memory, x.n_rows + 1, "indptr");
  x.indptr[0] = 0;
  const auto blocks = static_cast<std::int64_t>(p.blocks.size());
  const auto kept = [&](std::int32_t column) { return p.columns.empty() ? column : p.columns[at(column)]; };
  parallel_for(ctx, blocks, 1, [&](std::int64_t b, std::int64_t) {
    const auto indices = p.columns.empty() ? std::vector<std::int32_t>() : p.indices(at(b));
    for (std::size_t r = p.blocks[at(b)].first; r < p.blocks[at(b)].second; ++r) {
      const std::int64_t begin = p.indptr[at(p.rows[r])], end = p.indptr[at(p.rows[r] + 1)], from = p.first(at(b));
      x.indptr[static_cast<std::int64_t>(r) + 1] =
          p.columns.empty() ? end - begin
                            : std::count_if(indices.begin() + (begin - from), indices.begin() + (end - from),
                                            [&](std::int32_t c) { return kept(c) >= 0; });
    }
  });
  std::partial_sum(x.indptr.begin(), x.indptr.end(), x.indptr.begin());
  x.indices = Array<std::int32_t>(ctx.memory, x.indptr[x.n_rows], "indices");
  x.values = Array<V>(ctx.memory, x.indptr[x.n_rows], "values");
  std::atomic<bool> fits{true};
  parallel_for(ctx, blocks, 1, [&](std::int64_t b, std::int64_t) {
    if (!fits) return;
    const auto indices = p.indices(at(b));
    const std::int64_t from = p.first(at(b)), n = p.count(at(b));
    std::vector<V> values(at(n));
    const bool known = with_type(p.m.dtype, [&]<class T>(T) {
      std::vector<T> stored(at(n));
      p.m.values(from, n, reinterpret_cast<std::byte*>(stored.data()));
      if (!scw::io::convert(stored.data(), values.data(), n)) fits = false;
      if constexpr (std::is_same_v<T, double> && std::is_same_v<V, float>) {  // rounding is no misfit for convert
        bool exact = true;
        for (std::int64_t k = 0; k < n; ++k) {
          const double v = stored[at(k)];
          exact &= static_cast<double>(values[at(k)]) == v || v != v;
        }
        if (!exact) fits = false;
      }
    });
    SCW_EXPECT_AS(NotSupported, known, op, "values of type {} cannot be read", p.m.dtype);
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::size_t r = p.blocks[at(b)].first; r < p.blocks[at(b)].second; ++r) {
      row.clear();
      bool sorted = true;
      for (std::int64_t k = p.indptr[at(p.rows[r])] - from; k < p.indptr[at(p.rows[r] + 1)] - from; ++k)
        if (const std::int32_t c = kept(indices[at(k)]); c >= 0) {
          sorted = sorted && (row.empty() || row.back().first < c);
          row.emplace_back(c, values[at(k)]);
        }
      if (!sorted) {
        std::sort(row.begin(), row.end(), [](const auto& a, const auto& c) { return a.first < c.first; });
        for (std::size_t k = 1; k < row.size(); ++k)
          SCW_EXPECT_AS(DataError, row[k].first != row[k - 1].first, op, "duplicate index {} in cell {}", row[k].first,
                        p.rows[r]);
      }
      std::int64_t to = x.indptr[static_cast<std::int64_t>(r)];
      for (const auto& [column, value] : row) {
        x.indices[to] = column;
        x.values[to++] = value;
      }
    }
  });
  if (!fits) return std::nullopt;
  return x;
}

}  // namespace

MatrixElement load_rows(const Context& ctx, const char* op, const MatrixStream& m, Span<const std::uint8_t> rows,
                        Span<const std::uint8_t> cols) {
  SCW_ASSERT(m.layout == StoredLayout::csr);
  SCW_EXPECT_AS(ShapeMismatch, rows.empty() || rows.size == m.n_rows, op, "obs_mask has {} entries (expected {})",
                rows.size, m.n_rows);
  SCW_EXPECT_AS(ShapeMismatch, cols.empty() || cols.size == m.n_cols, op, "var_mask has {} entries (expected {})",
                cols.size, m.n_cols);
  const Picked p(m, rows, cols);
  if (auto x = load_rows<float>(ctx, op, p)) return std::move(*x);
  auto x = load_rows<double>(ctx, op, p);
  SCW_EXPECT_AS(DataError, x.has_value(), op, "a value is over 2^53, which a double cannot hold");
  return std::move(*x);
}

}  // namespace scw::io
