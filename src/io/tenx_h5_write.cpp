#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "io/buffer.hpp"
#include "io/hdf5.hpp"
#include "io/hdf5_output.hpp"
#include "io/number_types.hpp"
#include "io/output.hpp"
#include "io/tenx_output.hpp"
#include "io/transpose.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/version.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "write_10x_h5";
constexpr std::int64_t kEntries = 1 << 17;  // that a thread looks at at a time
constexpr std::int64_t kDense = 1 << 20;    // the same of a dense matrix
constexpr std::size_t kLongestText = 64 << 10;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// -------------------------------------------------------------------------------------------------------------- values

/// What a type must have room for.
struct Needs {
  bool integers = true;  ///< that int64 holds
  bool wide = false;     ///< an integer that float does not hold, or need not
  bool over = false;     ///< an integer that int64 does not hold
  void add(const Needs& o) {
    integers = integers && o.integers;
    wide = wide || o.wide;
    over = over || o.over;
  }
};

template <class T>
Needs needs_of(const T* values, std::int64_t n) {
  constexpr std::int64_t kExact = 1 << 24;
  Needs out;
  if constexpr (std::is_floating_point_v<T>) {
    bool whole = true, narrow = true;
    for (std::int64_t i = 0; i < n; ++i) {
      const T size = std::abs(values[i]);
      whole &= size < T(0x1p63) && size == std::trunc(size);
      narrow &= size <= T(kExact);
    }
    out.integers = whole;
    out.wide = !narrow;
  } else if constexpr (sizeof(T) > 2) {
    T least = 0, most = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      least = std::min(least, values[i]);
      most = std::max(most, values[i]);
    }
    out.wide = std::cmp_less(least, -kExact) || std::cmp_greater(most, kExact);
    out.over = !std::in_range<std::int64_t>(most);
  }
  return out;
}

template <class From, class To>
FillRange converted(const FillRange& values) {
  if constexpr (std::is_same_v<From, To>) {
    return values;
  } else {
    return [values](std::int64_t first, std::int64_t n, std::byte* out) {
      Buffer buffer(at(n) * sizeof(From));
      values(first, n, buffer.data());
      const auto* from = reinterpret_cast<const From*>(buffer.data());
      auto* to = reinterpret_cast<To*>(out);
      for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
    };
  }
}

/// X by cells: the type of its data, and the ranges that are written.
struct Entries {
  const char* dtype = "int32";
  std::vector<std::int64_t> indptr;
  FillRange data, indices;  ///< of dtype; int64
};

/// f(To{}) for the type that is written; From is that of X.
template <class From, class F>
void with_written_type(const Needs& needs, Entries& out, F&& f) {
  if (needs.integers && !needs.wide) {
    out.dtype = "int32";
    f(std::int32_t{});
  } else if (needs.integers) {
    out.dtype = "int64";
    f(std::int64_t{});
  } else if constexpr (std::is_floating_point_v<From>) {
    out.dtype = sizeof(From) == sizeof(float) ? "float32" : "float64";
    f(From{});
  }
}

class Reader {
 public:
  Reader(const Context& ctx, Stream m) : ctx_(ctx), m_(std::move(m)) {}

  Entries entries() {
    Entries out;
    const bool known = with_type(m_->dtype, [&]<class T>(T) {
      if (m_->layout == StoredLayout::dense)
        dense<T>(out);
      else
        sparse<T>(out);
    });
    SCW_EXPECT_AS(NotSupported, known, kOp, "values of type {} cannot be written", m_->dtype);
    return out;
  }

 private:
  /// body(first, last, buffer) for all of 0..total; tells how far it is.
  template <class F>
  void look(std::int64_t total, std::int64_t step, F&& body) const {
    std::vector<Buffer> buffers(at(std::max(1, ctx_.n_threads)));
    const std::int64_t batch = step * 8 * static_cast<std::int64_t>(buffers.size());
    for (std::int64_t begin = 0; begin < total; begin += batch) {
      const std::int64_t n = std::min(batch, total - begin);
      parallel_chunks(ctx_, n, step, [&](std::int64_t, std::int64_t first, std::int64_t last, int worker) {
        body(begin + first, last - first, buffers[at(worker)]);
      });
      ctx_.report(kOp, begin + n, total);
    }
  }
  void expect_written(const Needs& needs) const {
    SCW_EXPECT_AS(NotSupported, !needs.over, kOp, "X has a count over 2^63 - 1 (expected at most that)");
  }

  template <class T>
  void sparse(Entries& out) {
    out.indptr = offsets_of(kOp, *m_);
    if (m_->layout == StoredLayout::csc) turn<T>(out);
    std::mutex mutex;
    Needs needs;
    if (sizeof(T) > 2)
      look(m_->nnz, kEntries, [&](std::int64_t first, std::int64_t n, Buffer& buffer) {
        buffer.resize(at(n) * sizeof(T));
        m_->values(first, n, buffer.data());
        const Needs some = needs_of(reinterpret_cast<const T*>(buffer.data()), n);
        const std::lock_guard lock(mutex);
        needs.add(some);
      });
    expect_written(needs);
    with_written_type<T>(needs, out, [&]<class To>(To) { out.data = converted<T, To>(m_->values); });
    out.indices = converted<std::int32_t, std::int64_t>(m_->indices);
  }

  /// CSC to CSR, in memory.
  template <class T>
  void turn(Entries& out) {
    Array<std::int64_t> indptr(ctx_.memory, m_->n_cols + 1, "indptr");
    std::copy(out.indptr.begin(), out.indptr.end(), indptr.begin());
    Array<std::int32_t> indices(ctx_.memory, m_->nnz, "indices");
    Array<T> values(ctx_.memory, m_->nnz, "values");
    look(m_->nnz, kEntries, [&](std::int64_t first, std::int64_t n, Buffer&) {
      m_->indices(first, n, reinterpret_cast<std::byte*>(indices.data() + first));
      m_->values(first, n, reinterpret_cast<std::byte*>(values.data() + first));
      for (std::int64_t p = first; p < first + n; ++p)
        SCW_EXPECT_AS(DataError, indices[p] >= 0 && indices[p] < m_->n_rows, kOp,
                      "X has index {} at position {} (expected 0 to {})", indices[p], p, m_->n_rows - 1);
    });
    const auto x = std::make_shared<Csr<T>>(transpose(ctx_, m_->n_cols, m_->n_rows, indptr, indices, values));
    auto turned = std::make_shared<MatrixStream>(*m_);
    turned->layout = StoredLayout::csr;
    turned->values = [x](std::int64_t first, std::int64_t n, std::byte* to) {
      std::memcpy(to, x->values.data() + first, at(n) * sizeof(T));
    };
    turned->indices = [x](std::int64_t first, std::int64_t n, std::byte* to) {
      std::memcpy(to, x->indices.data() + first, at(n) * sizeof(std::int32_t));
    };
    turned->indptr = {};
    out.indptr.assign(x->indptr.begin(), x->indptr.end());
    m_ = std::move(turned);
  }

  template <class T>
  void dense(Entries& out) {
    const std::int64_t cols = m_->n_cols, rows = std::max<std::int64_t>(1, kDense / std::max<std::int64_t>(1, cols));
    out.indptr.assign(at(m_->n_rows + 1), 0);
    std::mutex mutex;
    Needs needs;
    if (cols > 0)
      look(m_->n_rows, rows, [&](std::int64_t first, std::int64_t n, Buffer& buffer) {
        buffer.resize(at(checked_mul(n, cols)) * sizeof(T));
        m_->values(first, n, buffer.data());
        const auto* values = reinterpret_cast<const T*>(buffer.data());
        for (std::int64_t i = 0; i < n; ++i)
          out.indptr[at(first + i + 1)] =
              std::count_if(values + i * cols, values + (i + 1) * cols, [](T v) { return v != T{0}; });
        const Needs some = needs_of(values, n * cols);
        const std::lock_guard lock(mutex);
        needs.add(some);
      });
    expect_written(needs);
    for (std::size_t i = 1; i < out.indptr.size(); ++i) out.indptr[i] += out.indptr[i - 1];
    const auto offsets = std::make_shared<const std::vector<std::int64_t>>(out.indptr);
    /// body(position from first, column, value) for entries [first, first + n).
    const auto each = [m = m_, offsets, rows, cols](std::int64_t first, std::int64_t n, auto&& body) {
      const std::vector<std::int64_t>& p = *offsets;
      const std::int64_t end = first + n;
      std::int64_t row = std::upper_bound(p.begin(), p.end(), first) - p.begin() - 1;
      const std::int64_t last = std::lower_bound(p.begin(), p.end(), end) - p.begin();
      Buffer buffer;
      for (; row < last; row += rows) {
        const std::int64_t here = std::min(rows, last - row);
        buffer.resize(at(here * cols) * sizeof(T));
        m->values(row, here, buffer.data());
        const auto* values = reinterpret_cast<const T*>(buffer.data());
        for (std::int64_t i = 0; i < here; ++i) {
          std::int64_t q = p[at(row + i)];
          for (std::int64_t j = 0; j < cols; ++j) {
            const T v = values[i * cols + j];
            if (v == T{0}) continue;
            if (q >= first && q < end) body(q - first, j, v);
            ++q;
          }
        }
      }
    };
    with_written_type<T>(needs, out, [&]<class To>(To) {
      out.data = [each](std::int64_t first, std::int64_t n, std::byte* to) {
        each(first, n, [to](std::int64_t k, std::int64_t, T v) { reinterpret_cast<To*>(to)[k] = static_cast<To>(v); });
      };
    });
    out.indices = [each](std::int64_t first, std::int64_t n, std::byte* to) {
      each(first, n, [to](std::int64_t k, std::int64_t j, T) { reinterpret_cast<std::int64_t*>(to)[k] = j; });
    };
  }

  const Context& ctx_;
  Stream m_;
};

// --------------------------------------------------------------------------------------------------------------- texts

bool is_ascii(const std::vector<std::string>& texts) {
  for (const auto& text : texts)
    if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) > 127; })) return false;
  return true;
}

/// Whether texts can be of fixed length.
bool fits(const std::string& text) { return text.size() <= kLongestText && text.find('\0') == std::string::npos; }

void expect_names(const std::vector<std::string>& names, const char* what) {
  for (std::size_t i = 0; i < names.size(); ++i)
    SCW_EXPECT(fits(names[i]), kOp, "the name of {} {} has a zero byte or is too long ({} bytes, expected at most {})",
               what, i, names[i].size(), kLongestText);
}

h5::Id write_texts(const h5::Target& t, const std::string& name, const std::vector<std::string>& texts) {
  std::size_t width = 1;
  for (const auto& text : texts) width = std::max(width, text.size());
  const h5::Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), width);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  if (!is_ascii(texts)) H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return h5::write_dataset(t, name, type.get(), {static_cast<std::int64_t>(texts.size())}, false,
                           [&](std::int64_t first, std::int64_t n, std::byte* out) {
                             std::memset(out, 0, at(n) * width);
                             for (std::int64_t i = 0; i < n; ++i)
                               std::memcpy(out + at(i) * width, texts[at(first + i)].data(),
                                           texts[at(first + i)].size());
                           });
}

void write_flags(const h5::Target& t, const std::string& name, const Bools& flags) {
  const h5::Id type = h5::bool_type();
  h5::write_dataset(t, name, type.get(), {static_cast<std::int64_t>(flags.values.size())}, false,
                    [&](std::int64_t first, std::int64_t n, std::byte* out) {
                      std::memcpy(out, flags.values.data() + first, at(n));
                    });
}

/// Whether a column of var can be a dataset of the group of features: text or booleans without missing values, by a
/// name that nothing else there has. (scanpy looks for the datasets of both groups in one place.)
bool is_tag(const std::string& name, const Column& c) {
  static const std::set<std::string> taken{
      "",     ".",       "id",     "name",  "gene_id",  "feature_type", "genome",
      "data", "indices", "indptr", "shape", "barcodes", "probe_ids",    "_all_tag_keys"};
  if (taken.contains(name) || name.find('/') != std::string::npos || !fits(name) || c.missing) return false;
  if (std::holds_alternative<Bools>(c.data)) return true;
  const std::vector<std::string>* texts = std::get_if<std::vector<std::string>>(&c.data);
  if (const auto* groups = std::get_if<Categorical>(&c.data)) {
    texts = std::get_if<std::vector<std::string>>(&groups->categories);
    if (std::find(groups->codes.begin(), groups->codes.end(), -1) != groups->codes.end()) return false;
  }
  return texts != nullptr && std::all_of(texts->begin(), texts->end(), &fits);
}

bool is_cell_flag(const std::string& name, const Column& c) {
  return name == "filtered_barcodes" && std::holds_alternative<Bools>(c.data) && !c.missing;
}

void write_features(const h5::Target& t, const AnnData& a, const FeatureNames& names) {
  const auto genome = texts_of(a.var, "genome"), probes = texts_of(a.var, "probe_ids");
  write_texts(t, "id", probes ? *probes : names.ids);
  if (probes) write_texts(t, "gene_id", names.ids);
  write_texts(t, "name", names.symbols);
  write_texts(t, "feature_type", names.types);
  write_texts(t, "genome", genome ? *genome : std::vector<std::string>(names.ids.size()));
  std::vector<std::string> tags{"genome"};
  for (const auto& [name, c] : a.var.columns()) {
    if (name == "gene_ids" || name == "gene_symbols" || name == "feature_types" || !is_tag(name, c)) continue;
    if (const auto* flags = std::get_if<Bools>(&c.data)) {
      write_flags(t, name, *flags);
    } else {
      write_texts(t, name, c.to_strings(""));
      tags.push_back(name);
    }
  }
  write_texts(t, "_all_tag_keys", tags);
}

void warn_of_names(const Context& ctx, const AnnData& a, const FeatureNames& names) {
  if (is_ascii(a.obs.index()) && is_ascii(names.ids) && is_ascii(names.symbols) && is_ascii(names.types)) return;
  ctx.warn(fmt::format("{}: names that are not ASCII are written as UTF-8, which scanpy.read_10x_h5 cannot read", kOp));
}

}  // namespace

void write_10x_h5(const Context& ctx, const AnnData& data, const std::string& path, const Write10xH5Options& options) {
  constexpr std::int64_t kSmallest = 4 << 10, kLargest = 1 << 30;
  SCW_EXPECT(options.compression_level >= 0 && options.compression_level <= 12, kOp,
             "compression_level must be 0 to 12 (got {})", options.compression_level);
  SCW_EXPECT(options.chunk_bytes >= kSmallest && options.chunk_bytes <= kLargest, kOp,
             "chunk_bytes must be {} to {} (got {})", kSmallest, kLargest, options.chunk_bytes);
  SCW_EXPECT(data.X.has_value(), kOp, "there is no X");
  data.validate();
  SCW_EXPECT_AS(NotSupported, data.n_obs() <= INT32_MAX && data.n_vars() <= INT32_MAX, kOp,
                "X is {} x {} (expected less than 2^31 cells and genes)", data.n_obs(), data.n_vars());
  const FeatureNames names = feature_names(data.var);
  expect_names(data.obs.index(), "cell");
  for (const auto* texts : {&names.ids, &names.symbols, &names.types}) expect_names(*texts, "gene");
  for (const char* name : {"genome", "probe_ids"})
    if (const auto texts = texts_of(data.var, name)) expect_names(*texts, name);

  h5::WriteOptions how;
  how.compression = options.compression_level == 0 ? Compression::none : Compression::gzip;
  how.level = options.compression_level;
  how.chunk_bytes = options.chunk_bytes;
  const h5::Session session;
  h5::OutputFile file(kOp, path, false);  // first: a folder that cannot be written is told before X is read
  warn_of_rest(ctx, kOp, "10x HDF5", data, &is_cell_flag, [](const std::string& name, const Column& c) {
    return ((name == "genome" || name == "probe_ids") && !std::holds_alternative<Foreign>(c.data)) || is_tag(name, c);
  });
  warn_of_names(ctx, data, names);
  const Entries x = Reader(ctx, stream_over(*data.X)).entries();

  h5::Target top;
  top.ctx = &ctx;
  top.file = &path;
  top.id = file.id();
  top.options = how;
  top.op = kOp;
  h5::write_attribute(top, top.id, "filetype", std::string_view("matrix"));
  h5::write_attribute(top, top.id, "version", std::int64_t{2});
  h5::write_attribute(top, top.id, "software_version", std::string_view(fmt::format("scwarp {}", kVersion)));
  h5::Id keep_matrix, keep_features;
  const h5::Target matrix = h5::group(top, "matrix", keep_matrix);
  const auto numbers = [&](const char* name, std::string_view dtype, std::int64_t n, const FillRange& fill) {
    const h5::Id type = h5::type_of_name(dtype);
    SCW_ASSERT(type);
    h5::write_dataset(matrix, name, type.get(), {n}, false, fill);
  };
  write_texts(matrix, "barcodes", data.obs.index());
  numbers("data", x.dtype, x.indptr.back(), x.data);
  numbers("indices", "int64", x.indptr.back(), x.indices);
  numbers("indptr", "int64", data.n_obs() + 1, [&](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, x.indptr.data() + first, at(n) * sizeof(std::int64_t));
  });
  const std::int32_t shape[2] = {static_cast<std::int32_t>(data.n_vars()), static_cast<std::int32_t>(data.n_obs())};
  numbers("shape", "int32", 2, [&](std::int64_t first, std::int64_t n, std::byte* out) {
    std::memcpy(out, shape + first, at(n) * sizeof(std::int32_t));
  });
  if (const Column* c = data.obs.find("filtered_barcodes"); c != nullptr && is_cell_flag("filtered_barcodes", *c))
    write_flags(matrix, "filtered_barcodes", std::get<Bools>(c->data));
  write_features(h5::group(matrix, "features", keep_features), data, names);
  if (data.X->stream != nullptr) expect_unchanged(kOp, data);
  keep_features = h5::Id();
  keep_matrix = h5::Id();
  file.commit();
}

}  // namespace scw::io
