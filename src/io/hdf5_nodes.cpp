// Groups, links, attributes and what a dataset declares.
#include <algorithm>
#include <cstring>

#include "io/hdf5.hpp"
#include "io/hdf5_filters.hpp"

namespace scw::io::h5 {

// ------------------------------------------------------------------------------------------------- groups and links

namespace {

constexpr int kMaxLinks = 1 << 22;

Node open_node(const Source& source, hid_t parent, const std::string& name, std::string path) {
  Node node;
  node.source = &source;
  node.path = std::move(path);
  node.id = Id(H5Oopen(parent, name.c_str(), H5P_DEFAULT));
  if (!node.id) node.fail("cannot be opened ({})", last_error());
  const auto kind = H5Iget_type(node.id.get());
  if (kind != H5I_GROUP && kind != H5I_DATASET) node.fail("neither a group nor a dataset");
  node.is_group = kind == H5I_GROUP;
  H5O_info_t info{};
  if (H5Oget_info2(node.id.get(), &info, H5O_INFO_BASIC) < 0) node.fail("damaged ({})", last_error());
  node.address = info.addr;
  return node;
}

herr_t collect_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  auto& all = *static_cast<std::vector<Link>*>(out);
  if (all.size() >= kMaxLinks) return -1;
  try {
    all.push_back({name, info->type == H5L_TYPE_HARD});
  } catch (...) {
    return -1;
  }
  return 0;
}

}  // namespace

Node root(const Source& source) { return open_node(source, source.file(), "/", "/"); }

std::optional<Node> find(const Node& group, const std::string& name) {
  if (!group.is_group) group.fail("is a dataset (expected a group with '{}')", name);
  const auto slash = name.find('/');
  const std::string first = name.substr(0, slash);
  const std::string path = (group.path == "/" ? "" : group.path) + "/" + first;
  if (first.empty() || first == "." || first.find('\0') != std::string::npos) return std::nullopt;
  if (H5Lexists(group.id.get(), first.c_str(), H5P_DEFAULT) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    return std::nullopt;
  }
  H5L_info_t info{};
  if (H5Lget_info(group.id.get(), first.c_str(), &info, H5P_DEFAULT) < 0)
    group.source->fail(path, "damaged link ({})", last_error());
  if (info.type != H5L_TYPE_HARD)
    group.source->fail(path, "is a {} link; scwarp reads what is in the file itself",
                       info.type == H5L_TYPE_SOFT ? "soft" : "external");
  group.source->check_object(path, info.u.address);
  Node node = open_node(*group.source, group.id.get(), first, path);
  if (slash == std::string::npos) return node;
  if (!node.is_group) return std::nullopt;
  return find(node, name.substr(slash + 1));
}

Node child(const Node& group, const std::string& name) {
  auto node = find(group, name);
  if (!node) group.fail("has no '{}'", name);
  return std::move(*node);
}

std::vector<Link> links(const Node& group) {
  std::vector<Link> all;
  hsize_t at = 0;
  // In the order of the file: to sort them, the library builds a table that it cannot take down when a member is
  // damaged.
  if (H5Literate(group.id.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &at, &collect_link, &all) < 0)
    group.fail("its list of members is damaged ({})", last_error());
  std::sort(all.begin(), all.end(), [](const Link& a, const Link& b) { return a.name < b.name; });
  return all;
}

// --------------------------------------------------------------------------------------------------------- attributes

namespace {

struct Attribute {
  Id id, space;
  Type type;
  std::int64_t count = 0;
};

std::optional<Attribute> attribute(const Node& node, const char* name) {
  if (!has_attribute(node, name)) return std::nullopt;
  Attribute a;
  a.id = Id(H5Aopen(node.id.get(), name, H5P_DEFAULT));
  if (!a.id) node.fail("attribute '{}' is damaged ({})", name, last_error());
  a.space = Id(H5Aget_space(a.id.get()));
  a.type = describe(Id(H5Aget_type(a.id.get())));
  a.count = H5Sget_simple_extent_npoints(a.space.get());
  if (H5Sget_simple_extent_type(a.space.get()) == H5S_NULL) a.count = 0;
  constexpr std::int64_t kMaxCount = 1 << 22;
  const auto storage = static_cast<std::int64_t>(H5Aget_storage_size(a.id.get()));
  if (a.count < 0 || a.count > kMaxCount || storage > node.source->size())
    node.fail("attribute '{}' declares an implausible size", name);
  return a;
}

}  // namespace

bool has_attribute(const Node& node, const char* name) {
  const bool found = H5Aexists(node.id.get(), name) > 0;
  H5Eclear2(H5E_DEFAULT);
  return found;
}

std::optional<std::vector<std::string>> texts_attribute(const Node& node, const char* name) {
  const auto a = attribute(node, name);
  if (!a) return std::nullopt;
  std::vector<std::string> out;
  if (a->count == 0) return out;
  if (a->type.kind != Kind::string) node.fail("attribute '{}' is of type {} (expected text)", name, a->type.name);
  if (a->type.variable) {
    const Id memory(H5Tcopy(a->type.id.get()));
    std::vector<char*> values(static_cast<std::size_t>(a->count), nullptr);
    if (H5Aread(a->id.get(), memory.get(), values.data()) < 0)
      node.fail("attribute '{}' cannot be read ({})", name, last_error());
    for (const char* v : values) out.emplace_back(v == nullptr ? "" : v);
    H5Dvlen_reclaim(memory.get(), a->space.get(), H5P_DEFAULT, values.data());
    return out;
  }
  const auto size = a->type.size;
  if (static_cast<std::int64_t>(size) > node.source->size())
    node.fail("attribute '{}' declares an implausible size", name);
  std::vector<char> values(size * static_cast<std::size_t>(a->count));
  if (H5Aread(a->id.get(), a->type.id.get(), values.data()) < 0)
    node.fail("attribute '{}' cannot be read ({})", name, last_error());
  for (std::int64_t i = 0; i < a->count; ++i) {
    const char* v = values.data() + static_cast<std::size_t>(i) * size;
    out.emplace_back(v, strnlen(v, size));
  }
  return out;
}

std::optional<std::string> text_attribute(const Node& node, const char* name) {
  auto all = texts_attribute(node, name);
  if (!all) return std::nullopt;
  if (all->size() != 1) node.fail("attribute '{}' has {} values (expected 1)", name, all->size());
  return std::move(all->front());
}

std::optional<std::vector<std::int64_t>> integers_attribute(const Node& node, const char* name) {
  const auto a = attribute(node, name);
  if (!a) return std::nullopt;
  std::vector<std::int64_t> out(static_cast<std::size_t>(a->count));
  if (a->count == 0) return out;
  if (a->type.kind == Kind::boolean) {
    std::vector<std::int8_t> flags(out.size());
    if (H5Aread(a->id.get(), a->type.id.get(), flags.data()) < 0)
      node.fail("attribute '{}' cannot be read ({})", name, last_error());
    std::copy(flags.begin(), flags.end(), out.begin());
    return out;
  }
  if (a->type.kind != Kind::integer) node.fail("attribute '{}' is of type {} (expected integers)", name, a->type.name);
  if (H5Aread(a->id.get(), H5T_NATIVE_INT64, out.data()) < 0)
    node.fail("attribute '{}' cannot be read ({})", name, last_error());
  return out;
}

// ----------------------------------------------------------------------------------------------------------- datasets

Dataset dataset(Node node) {
  if (node.is_group) node.fail("is a group (expected a dataset)");
  Dataset d;
  d.source = node.source;
  d.path = std::move(node.path);
  d.id = std::move(node.id);
  d.address = node.address;
  d.space = Id(H5Dget_space(d.id.get()));
  d.plist = Id(H5Dget_create_plist(d.id.get()));
  d.type = describe(Id(H5Dget_type(d.id.get())));
  if (!d.space || !d.plist || !d.type.id || d.type.size == 0) d.fail("damaged ({})", last_error());
  d.is_null = H5Sget_simple_extent_type(d.space.get()) == H5S_NULL;
  const int rank = H5Sget_simple_extent_ndims(d.space.get());
  if (rank < 0) d.fail("damaged ({})", last_error());
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  if (rank > 0 && H5Sget_simple_extent_dims(d.space.get(), dims.data(), nullptr) < 0)
    d.fail("damaged ({})", last_error());
  const auto layout = H5Pget_layout(d.plist.get());
  if (layout == H5D_VIRTUAL) d.fail("is a virtual dataset; scwarp reads what is in the file itself");
  if (H5Pget_external_count(d.plist.get()) > 0)
    d.fail("is stored in another file; scwarp reads what is in the file itself");

  d.count = d.is_null ? 0 : 1;
  bool fits = true;
  for (const hsize_t n : dims) {
    fits = fits && n <= static_cast<hsize_t>(INT64_MAX) &&
           !__builtin_mul_overflow(d.count, static_cast<std::int64_t>(n), &d.count);
    d.dims.push_back(static_cast<std::int64_t>(n));
  }
  std::int64_t declared = 0;
  fits = fits && !__builtin_mul_overflow(d.count, static_cast<std::int64_t>(d.type.size), &declared);
  if (!fits) d.fail("declares more elements than 64 bits can count");
  if (d.count == 0) return d;
  const auto stored = static_cast<std::int64_t>(std::min<hsize_t>(H5Dget_storage_size(d.id.get()), INT64_MAX));
  if (stored > d.source->size() || (declared > kFreeBytes && declared / max_expansion(d) > stored))
    d.fail("declares {} bytes, but stores {} in a file of {}", declared, stored, d.source->size());
  if (layout == H5D_CHUNKED) {
    // One chunk is unpacked as a whole, however little of it belongs to the dataset.
    hsize_t shape[H5S_MAX_RANK];
    const int n = H5Pget_chunk(d.plist.get(), H5S_MAX_RANK, shape);
    auto chunk = static_cast<std::int64_t>(d.type.size);
    for (int k = 0; k < n; ++k)
      fits = fits && shape[k] <= static_cast<hsize_t>(INT64_MAX) &&
             !__builtin_mul_overflow(chunk, static_cast<std::int64_t>(shape[k]), &chunk);
    if (n <= 0 || !fits || (chunk > kFreeBytes && chunk / max_expansion(d) > stored))
      d.fail("is stored in chunks of {} bytes, but stores {}", chunk, stored);
  }
  return d;
}

}  // namespace scw::io::h5
