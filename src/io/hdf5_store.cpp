// HDF5 as a Store: nodes, attributes and arrays, and the layouts that only HDF5 files have (arrays of records with
// texts of variable length, types that scwarp cannot compute on, the tables of anndata 0.6).
#include <cstring>
#include <mutex>

#include "core/parallel.hpp"
#include "io/hdf5.hpp"
#include "io/hdf5_range.hpp"
#include "io/store.hpp"

namespace scw::io {
namespace {

h5::Id again(const h5::Id& id) {
  H5Iinc_ref(id.get());
  return h5::Id(id.get());
}

class HdfArray final : public StoredArray {
 public:
  explicit HdfArray(h5::Dataset d) : StoredArray(*d.source, d.path), d_(std::move(d)) {
    type = {d_.type.kind, d_.type.size, d_.type.is_signed, d_.type.name};
    if (type.kind == Kind::compound)
      if (auto name = numpy_name(); !name.empty()) type = {Kind::other, type.size, true, std::move(name)};  // complex
    is_null = d_.is_null;
    dims = d_.dims;
    count = d_.count;
  }

  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::uint8_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int32_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int64_t* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out) const override {
    return numbers(ctx, first, n, out);
  }
  bool is_concurrent() const override { return !reader().needs_library(); }
  std::int64_t chunk_rows() const override { return reader().chunk_rows(); }
  bool has_readable_texts() const override { return h5::has_readable_texts(d_); }
  std::vector<std::string> texts(const Context& ctx) const override { return h5::read_strings(ctx, d_); }
  std::optional<StructArray> records(const Context& ctx) const override;
  std::optional<OpaqueRows> opaque(const Context& ctx) const override;
  AxisElements fields_as_matrices(const Context& ctx) const override;

 private:
  template <class T>
  bool numbers(const Context& ctx, std::int64_t first, std::int64_t n, T* out) const {
    return reader().read(ctx, first, n, out);
  }
  const h5::RangeReader& reader() const {
    std::call_once(listed_, [this] { reader_ = std::make_unique<h5::RangeReader>(d_, type.size); });
    return *reader_;
  }
  bool can_be_opaque() const;
  std::string numpy_name() const;
  void add_field(const Context& ctx, StructArray& s, const std::string& name, hid_t type) const;

  h5::Dataset d_;
  mutable std::once_flag listed_;
  mutable std::unique_ptr<h5::RangeReader> reader_;  // where its chunks are; made when numbers are first asked for
};

class HdfNode final : public Node {
 public:
  explicit HdfNode(h5::Node node) : Node(*node.source, node.path, node.is_group), node_(std::move(node)) {}

  std::unique_ptr<Node> find(const std::string& name) const override {
    auto node = h5::find(node_, name);
    return node ? std::make_unique<HdfNode>(std::move(*node)) : nullptr;
  }
  std::vector<Link> links() const override {
    std::vector<Link> out;
    for (auto& link : h5::links(node_)) out.push_back({std::move(link.name), link.hard});
    return out;
  }
  std::unique_ptr<StoredArray> array() const override {
    h5::Node node;
    node.source = node_.source;
    node.path = node_.path;
    node.id = again(node_.id);
    node.is_group = node_.is_group;
    node.address = node_.address;
    return std::make_unique<HdfArray>(h5::dataset(std::move(node)));
  }
  std::optional<std::uint64_t> identity() const override { return node_.address; }
  std::int64_t stored_bytes() const override { return stored(node_, 0); }
  bool has_attribute(const char* name) const override { return h5::has_attribute(node_, name); }
  std::optional<std::vector<std::string>> texts_attribute(const char* name) const override {
    return h5::texts_attribute(node_, name);
  }
  Attributes attributes(std::vector<std::string>& dropped) const override;
  std::optional<std::vector<std::int64_t>> integers_attribute(const char* name) const override {
    return h5::integers_attribute(node_, name);
  }

 private:
  static std::int64_t stored(const h5::Node& node, int depth) {
    constexpr int kDeepest = 32;
    if (!node.is_group) return static_cast<std::int64_t>(H5Dget_storage_size(node.id.get()));
    std::int64_t sum = 0;
    if (depth < kDeepest)
      for (const auto& link : h5::links(node))
        if (link.hard) sum += stored(h5::child(node, link.name), depth + 1);
    return sum;
  }

  h5::Node node_;
};

herr_t collect_name(hid_t, const char* name, const H5A_info_t*, void* out) {
  try {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  } catch (...) {
    return -1;
  }
  return 0;
}

Attributes HdfNode::attributes(std::vector<std::string>& dropped) const {
  std::vector<std::string> names;
  hsize_t at = 0;
  if (H5Aiterate2(node_.id.get(), H5_INDEX_NAME, H5_ITER_INC, &at, &collect_name, &names) < 0)
    fail("its attributes are damaged ({})", h5::last_error());
  Attributes out;
  for (const auto& name : names) {
    const h5::Id a(H5Aopen(node_.id.get(), name.c_str(), H5P_DEFAULT));
    const h5::Id space(H5Aget_space(a.get()));
    const h5::Type t = h5::describe(h5::Id(H5Aget_type(a.get())));
    const int rank = H5Sget_simple_extent_ndims(space.get());
    const bool scalar = rank == 0 && H5Sget_simple_extent_type(space.get()) == H5S_SCALAR;
    const auto add = [&](auto values) {
      if (scalar && values->size() == 1)
        out.emplace_back(name, std::move(values->front()));
      else
        out.emplace_back(name, std::move(*values));
    };
    if (!scalar && rank != 1) {
      dropped.push_back(name);
    } else if (t.kind == Kind::string) {
      add(texts_attribute(name.c_str()));
    } else if (t.kind == Kind::boolean && scalar) {
      out.emplace_back(name, integers_attribute(name.c_str())->front() != 0);
    } else if (t.kind == Kind::integer) {
      add(integers_attribute(name.c_str()));
    } else if (t.kind == Kind::floating && t.size <= 8) {
      const auto n = H5Sget_simple_extent_npoints(space.get());
      if (n < 0 || n > 1 << 22) fail("attribute '{}' declares an implausible size", name);
      std::optional<std::vector<double>> values(std::in_place, static_cast<std::size_t>(n));
      if (n > 0 && H5Aread(a.get(), H5T_NATIVE_DOUBLE, values->data()) < 0)
        fail("attribute '{}' cannot be read ({})", name, h5::last_error());
      add(std::move(values));
    } else {
      dropped.push_back(name);
    }
  }
  return out;
}

bool HdfArray::can_be_opaque() const {
  const hid_t t = d_.type.id.get();
  return !is_null && !dims.empty() && H5Tdetect_class(t, H5T_VLEN) <= 0 && H5Tdetect_class(t, H5T_REFERENCE) <= 0 &&
         !d_.type.variable &&
         // variable strings inside compounds are a class of their own
         (type.kind != Kind::compound || H5Tdetect_class(t, H5T_STRING) <= 0);
}

/// Of values that are stored as this machine would; empty for others.
std::string HdfArray::numpy_name() const {
  const hid_t t = d_.type.id.get();
  if (type.kind == Kind::integer || type.kind == Kind::boolean) return d_.type.native ? type.name : "";
  if (type.kind == Kind::floating)
    return type.size <= 8 && H5Tequal(t, h5::type_of_name(type.name).get()) > 0 ? type.name : "";
  for (const char* name : {"complex64", "complex128"})
    if (d_.type.kind == Kind::compound && H5Tequal(t, h5::type_of_name(name).get()) > 0) return name;
  return "";
}

std::optional<OpaqueRows> HdfArray::opaque(const Context& ctx) const {
  if (!can_be_opaque()) return std::nullopt;
  const h5::Dataset& d = d_;
  OpaqueRows out;
  out.path = d.path;
  out.shape = d.dims;
  const std::int64_t cols = d.count == 0 ? 0 : d.count / d.dims[0];
  out.row_bytes = checked_mul(cols, static_cast<std::int64_t>(d.type.size));
  out.bytes.resize(static_cast<std::size_t>(checked_mul(d.count, static_cast<std::int64_t>(d.type.size))));
  h5::read_blocks(ctx, d, H5I_INVALID_HID, d.type.size, [&](const h5::Block& b) {
    const auto size = static_cast<std::int64_t>(d.type.size);
    for (std::int64_t i = 0; i < b.n_rows; ++i)
      std::copy_n(b.data + i * b.ld * size, b.n_cols * size, out.bytes.data() + ((b.row + i) * cols + b.col) * size);
  });
  std::size_t n = 0;
  if (H5Tencode(d.type.id.get(), nullptr, &n) < 0) d.fail("has a type that cannot be copied ({})", h5::last_error());
  out.type.resize(n);
  if (H5Tencode(d.type.id.get(), out.type.data(), &n) < 0)
    d.fail("has a type that cannot be copied ({})", h5::last_error());
  out.dtype = numpy_name();
  return out;
}

AxisElements HdfArray::fields_as_matrices(const Context& ctx) const {
  const h5::Dataset& d = d_;
  AxisElements out;
  if (d.type.kind != Kind::compound || d.dims.size() != 1) d.fail("is neither a group nor an array of records");
  const int n = H5Tget_nmembers(d.type.id.get());
  for (int k = 0; k < n; ++k) {
    char* name = H5Tget_member_name(d.type.id.get(), static_cast<unsigned>(k));
    const std::string field = name == nullptr ? "" : name;
    H5free_memory(name);
    const h5::Id member(H5Tget_member_type(d.type.id.get(), static_cast<unsigned>(k)));
    std::int64_t cols = 1;
    hsize_t width = 1;
    h5::Id base(H5Tcopy(member.get()));
    if (H5Tget_class(member.get()) == H5T_ARRAY) {
      if (H5Tget_array_ndims(member.get()) != 1) d.fail("field '{}' has more than two dimensions", field);
      H5Tget_array_dims2(member.get(), &width);
      base = h5::Id(H5Tget_super(member.get()));
      cols = static_cast<std::int64_t>(width);
    }
    const auto base_class = H5Tget_class(base.get());
    if (base_class != H5T_FLOAT && base_class != H5T_INTEGER) d.fail("field '{}' does not hold numbers", field);
    if (checked_mul(checked_mul(d.count, cols), 1) > d.source->size() + (1 << 26))
      d.fail("field '{}' is too large", field);
    Matrix<double> x(ctx.memory, d.count, cols, "dense");
    const h5::Id inner(H5Tarray_create2(H5T_NATIVE_DOUBLE, 1, &width));
    const h5::Id memory(H5Tcreate(H5T_COMPOUND, static_cast<std::size_t>(cols) * sizeof(double)));
    H5Tinsert(memory.get(), field.c_str(), 0,
              H5Tget_class(member.get()) == H5T_ARRAY ? inner.get() : H5T_NATIVE_DOUBLE);
    if (H5Pget_layout(d.plist.get()) == H5D_CHUNKED)
      h5::read_field(ctx, d, field, base.get(), H5T_NATIVE_DOUBLE, cols, x.data.data());
    else if (d.count > 0 && H5Dread(d.id.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, x.data.data()) < 0)
      d.fail("field '{}' cannot be read ({})", field, h5::last_error());
    MatrixElement m(std::move(x));
    m.stored_layout = StoredLayout::dense;
    m.stored_dtype = h5::describe(std::move(base)).name;
    out.insert_or_assign(field, std::move(m));
  }
  return out;
}

void HdfArray::add_field(const Context& ctx, StructArray& s, const std::string& name, hid_t type) const {
  const h5::Dataset& d = d_;
  const auto n = static_cast<std::size_t>(d.count);
  const auto read = [&](hid_t memory_type, std::size_t size, void* out) {
    if (H5Pget_layout(d.plist.get()) == H5D_CHUNKED) return h5::read_field(ctx, d, name, type, memory_type, 1, out);
    const h5::Id memory(H5Tcreate(H5T_COMPOUND, size));
    if (H5Tinsert(memory.get(), name.c_str(), 0, memory_type) < 0 ||
        (n > 0 && H5Dread(d.id.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0))
      d.fail("field '{}' cannot be read ({})", name, h5::last_error());
  };
  const auto t = h5::describe(h5::Id(H5Tcopy(type)));
  const auto numeric = [&]<class T>(T) {
    std::vector<T> values(n);
    read(h5::native_type<T>(), sizeof(T), values.data());
    s.fields.emplace_back(name, std::move(values));
  };
  switch (t.kind) {
    case Kind::floating:
      return t.size <= 4 ? numeric(float{}) : numeric(double{});
    case Kind::integer:
      return t.size <= 2 || (t.size == 4 && t.is_signed) ? numeric(std::int32_t{}) : numeric(std::int64_t{});
    case Kind::boolean: {
      Bools flags;
      flags.values.resize(n);
      read(t.id.get(), 1, flags.values.data());
      s.fields.emplace_back(name, std::move(flags));
      return;
    }
    default:
      break;
  }
  std::vector<std::string> texts;
  if (t.variable) {
    texts = h5::read_text_field(ctx, d, name);
  } else {
    std::vector<char> values(n * t.size);
    read(t.id.get(), t.size, values.data());
    for (std::size_t i = 0; i < n; ++i)
      texts.emplace_back(values.data() + i * t.size, strnlen(values.data() + i * t.size, t.size));
  }
  s.fields.emplace_back(name, std::move(texts));
}

std::optional<StructArray> HdfArray::records(const Context& ctx) const {
  const h5::Dataset& d = d_;
  if (d.type.kind != Kind::compound || d.dims.size() != 1) return std::nullopt;
  const int n = H5Tget_nmembers(d.type.id.get());
  std::vector<std::pair<std::string, h5::Id>> members;
  for (int k = 0; k < n; ++k) {
    char* name = H5Tget_member_name(d.type.id.get(), static_cast<unsigned>(k));
    h5::Id member(H5Tget_member_type(d.type.id.get(), static_cast<unsigned>(k)));
    const auto t = h5::describe(h5::Id(H5Tcopy(member.get())));
    const bool known = (t.kind == Kind::string && (!t.variable || h5::has_readable_texts(d))) ||
                       t.kind == Kind::boolean || (t.kind == Kind::integer && t.name != "uint64") ||
                       (t.kind == Kind::floating && t.size <= 8);
    members.emplace_back(name == nullptr ? "" : name, std::move(member));
    H5free_memory(name);
    if (!known) return std::nullopt;
  }
  StructArray out;
  out.n_rows = d.count;
  for (const auto& [name, type] : members) add_field(ctx, out, name, type.get());
  return out;
}

}  // namespace

std::unique_ptr<Node> Source::root() const { return std::make_unique<HdfNode>(h5::root(*this)); }

}  // namespace scw::io
