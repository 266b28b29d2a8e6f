// Writing HDF5 as a Store.
#include "io/hdf5_store.hpp"

#include <cstring>

#include "io/hdf5_copy.hpp"

namespace scw::io {
namespace {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

class HdfGroup final : public GroupWriter {
 public:
  HdfGroup(const HdfWriter& out, h5::Id keep, h5::Target target)
      : GroupWriter(target.path), out_(out), keep_(std::move(keep)), target_(std::move(target)) {}

  std::unique_ptr<GroupWriter> group(const std::string& name, const Attributes& attributes) override {
    h5::Id keep;
    h5::Target t = h5::group(target_, name, keep);
    auto g = std::make_unique<HdfGroup>(out_, std::move(keep), std::move(t));
    g->write(g->target_.id, attributes);
    return g;
  }
  void numbers(const std::string& name, std::string_view dtype, const std::vector<std::int64_t>& dims, bool growable,
               const FillRows& fill, const Attributes& attributes) override {
    const h5::Id type = h5::type_of_name(dtype);
    SCW_ASSERT(type);
    write(h5::write_dataset(target_, name, type.get(), dims, growable, fill).get(), attributes);
  }
  void texts(const std::string& name, const std::vector<std::int64_t>& dims, const std::vector<std::string>& values,
             const Attributes& attributes) override {
    write(h5::write_strings(target_, name, dims, values).get(), attributes);
  }
  void null(const std::string& name, const Attributes& attributes) override {
    create(name, H5T_NATIVE_FLOAT, h5::Id(H5Screate(H5S_NULL)), nullptr, attributes);
  }
  void records(const std::string& name, const StructArray& s, const Attributes& attributes) override;
  void opaque(const std::string& name, const OpaqueRows& o, const Attributes& attributes) override;
  void copy(const std::string& name, const Store& from, const std::string& from_path) override;

  const h5::Target& target() const { return target_; }
  void write(hid_t object, const Attributes& attributes) const {
    for (const auto& [key, value] : attributes)
      std::visit(Overload{[&](const std::string& v) {
                            h5::write_attribute(target_, object, key.c_str(), std::string_view(v));
                          },
                          [&](const auto& v) { h5::write_attribute(target_, object, key.c_str(), v); }},
                 value);
  }

 private:
  void check(bool ok, const std::string& name) const { h5::check(ok, out_.op(), out_.name(), path + "/" + name); }
  void create(const std::string& name, hid_t type, const h5::Id& space, const void* data,
              const Attributes& attributes) const {
    const h5::Id plist(H5Pcreate(H5P_DATASET_CREATE));
    const h5::Id how = h5::create_links(name);
    H5Pset_obj_track_times(plist.get(), false);
    const h5::Id d(H5Dcreate2(target_.id, name.c_str(), type, space.get(), how.get(), plist.get(), H5P_DEFAULT));
    check(d && (data == nullptr || H5Dwrite(d.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0), name);
    write(d.get(), attributes);
  }

  const HdfWriter& out_;
  h5::Id keep_;
  h5::Target target_;
};

/// Records as h5py writes them: text fields of variable length.
void HdfGroup::records(const std::string& name, const StructArray& s, const Attributes& attributes) {
  struct Field {
    h5::Id type;
    std::size_t size, offset;
  };
  std::vector<Field> fields;
  std::size_t record = 0;
  for (const auto& [field, data] : s.fields) {
    Field f{h5::Id(), 0, record};
    std::visit(Overload{[&](const std::vector<std::string>&) {
                          f.type = h5::string_type();
                          f.size = sizeof(char*);
                        },
                        [&](const Bools&) {
                          f.type = h5::bool_type();
                          f.size = 1;
                        },
                        [&]<class T>(const std::vector<T>&) {
                          f.type = h5::Id(H5Tcopy(h5::native_type<T>()));
                          f.size = sizeof(T);
                        }},
               data);
    record += f.size;
    fields.push_back(std::move(f));
  }
  const h5::Id type(H5Tcreate(H5T_COMPOUND, record));
  for (std::size_t k = 0; k < fields.size(); ++k)
    check(H5Tinsert(type.get(), s.fields[k].first.c_str(), fields[k].offset, fields[k].type.get()) >= 0, name);
  std::vector<std::byte> rows(static_cast<std::size_t>(s.n_rows) * record);
  for (std::size_t k = 0; k < fields.size(); ++k) {
    const auto put = [&](std::size_t i, const void* v) {
      std::memcpy(rows.data() + i * record + fields[k].offset, v, fields[k].size);
    };
    std::visit(Overload{[&](const std::vector<std::string>& v) {
                          for (std::size_t i = 0; i < v.size(); ++i) {
                            const char* text = v[i].c_str();
                            put(i, &text);
                          }
                        },
                        [&](const Bools& v) {
                          for (std::size_t i = 0; i < v.values.size(); ++i) put(i, &v.values[i]);
                        },
                        [&](const auto& v) {
                          for (std::size_t i = 0; i < v.size(); ++i) put(i, &v[i]);
                        }},
               s.fields[k].second);
  }
  const hsize_t n = static_cast<hsize_t>(s.n_rows);
  create(name, type.get(), h5::Id(H5Screate_simple(1, &n, nullptr)), n == 0 ? nullptr : rows.data(), attributes);
}

void HdfGroup::opaque(const std::string& name, const OpaqueRows& o, const Attributes& attributes) {
  const h5::Id type = o.type.empty() ? h5::type_of_name(o.dtype) : h5::Id(H5Tdecode(o.type.data()));
  check(static_cast<bool>(type), name);
  const h5::Id d = h5::write_dataset(
      target_, name, type.get(), o.shape, false, [&](std::int64_t first, std::int64_t rows, std::byte* out) {
        std::memcpy(out, o.bytes.data() + first * o.row_bytes, static_cast<std::size_t>(rows * o.row_bytes));
      });
  write(d.get(), attributes);
}

void HdfGroup::copy(const std::string& name, const Store& from, const std::string& from_path) {
  const auto& source = static_cast<const Source&>(from);
  h5::copy_object(target_, name, h5::child(h5::root(source), from_path.substr(1)));
}

}  // namespace

std::unique_ptr<GroupWriter> HdfWriter::root(const Attributes& attributes) {
  h5::Target t;
  t.ctx = &ctx_;
  t.file = &name_;
  t.options = options_;
  t.op = op_;
  h5::Id top(H5Oopen(file_, "/", H5P_DEFAULT));
  h5::check(static_cast<bool>(top), op_, name_, "/");
  t.id = top.get();
  auto g = std::make_unique<HdfGroup>(*this, std::move(top), std::move(t));
  g->write(g->target().id, attributes);
  return g;
}

/// Attributes that the encodings do not know, on objects that were there before: they are carried over as well.
void HdfWriter::copy_extra_attributes(const Store& from) {
  std::vector<std::string> paths;
  const auto collect = [](hid_t, const char* name, const H5O_info_t*, void* all) -> herr_t {
    try {
      static_cast<std::vector<std::string>*>(all)->emplace_back(name);
    } catch (...) {
      return -1;
    }
    return 0;
  };
  h5::check(H5Ovisit2(file_, H5_INDEX_NAME, H5_ITER_INC, collect, &paths, H5O_INFO_BASIC) >= 0, op_, name_, "/");
  h5::Target root;
  root.ctx = &ctx_;
  root.file = &name_;
  root.id = file_;
  root.op = op_;
  const h5::Node top = h5::root(static_cast<const Source&>(from));
  for (const auto& path : paths) {
    const h5::Id to(H5Oopen(file_, path.c_str(), H5P_DEFAULT));
    if (path == ".") {
      h5::copy_attributes(root, top.id.get(), to.get());
    } else {
      std::optional<h5::Node> original;
      try {
        original = h5::find(top, path);
      } catch (const FormatError&) {
        continue;  // damaged where nobody looked
      }
      if (original) h5::copy_attributes(root, original->id.get(), to.get());
    }
  }
}

}  // namespace scw::io
