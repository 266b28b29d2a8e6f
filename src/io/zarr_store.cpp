#include "io/zarr_store.hpp"

#include "io/zarr_array.hpp"

namespace scw::io::zarr {
namespace {

constexpr std::int64_t kMaxMetadata = 64 << 20;

class ZarrNode final : public Node {
 public:
  ZarrNode(const ZarrStore& store, std::string folder, bool group, Json metadata)
      : Node(store, "/" + folder, group),
        zarr_(store),
        folder_(std::move(folder)),
        metadata_(std::move(metadata)),
        attributes_(store.attributes(folder_, metadata_)) {}

  std::unique_ptr<Node> find(const std::string& name) const override {
    if (!is_group) fail("is an array (expected a group with '{}')", name);
    const auto slash = name.find('/');
    const std::string first = name.substr(0, slash);
    if (!is_plain_name(first)) return nullptr;
    bool group = false;
    const std::string folder = join(folder_, first);
    Json metadata = zarr_.metadata(folder, group);
    if (metadata.is_null()) return nullptr;
    auto node = std::make_unique<ZarrNode>(zarr_, folder, group, std::move(metadata));
    if (slash == std::string::npos) return node;
    return group ? node->find(name.substr(slash + 1)) : nullptr;
  }
  std::vector<Link> links() const override {
    std::vector<Link> out;
    for (const auto& e : zarr_.tree().list(folder_)) {
      const std::string folder = join(folder_, e.name);
      if (e.is_link) {
        if (e.name[0] != '.') out.push_back({e.name, false});
      } else if (e.is_folder && (zarr_.version() == 3 ? zarr_.tree().size(folder + "/zarr.json").has_value()
                                                      : zarr_.tree().size(folder + "/.zgroup").has_value() ||
                                                            zarr_.tree().size(folder + "/.zarray").has_value())) {
        out.push_back({e.name, true});
      }
    }
    return out;
  }
  std::unique_ptr<StoredArray> array() const override {
    if (is_group) fail("is a group (expected an array)");
    try {
      ArrayMeta meta = zarr_.version() == 3 ? parse_v3(metadata_) : parse_v2(metadata_);
      const bool null = attributes_.contains("encoding-type") && attributes_.at("encoding-type") == "null";
      return std::make_unique<ZarrArray>(zarr_, path, folder_, std::move(meta), null);
    } catch (const Damage& d) {
      fail("{}", d.what);
    }
  }
  std::int64_t stored_bytes() const override { return bytes_below(zarr_.tree(), folder_, 64); }
  bool has_attribute(const char* name) const override { return attributes_.contains(name); }
  std::optional<std::vector<std::string>> texts_attribute(const char* name) const override {
    const auto it = attributes_.find(name);
    if (it == attributes_.end()) return std::nullopt;
    std::vector<std::string> out;
    for (const Json& v : it->is_array() ? *it : Json::array({*it})) {
      if (!v.is_string()) fail("attribute '{}' is {} (expected text)", name, v.type_name());
      out.push_back(v.get<std::string>());
    }
    return out;
  }
  Attributes attributes(std::vector<std::string>& dropped) const override {
    Attributes out;
    for (const auto& [name, v] : attributes_.items()) {
      const auto all = [&v](auto&& is) { return v.is_array() && !v.empty() && std::all_of(v.begin(), v.end(), is); };
      const auto whole = [](const Json& x) {
        return x.is_number_integer() && !(x.is_number_unsigned() && x.get<std::uint64_t>() > INT64_MAX);
      };
      if (v.is_string())
        out.emplace_back(name, v.get<std::string>());
      else if (v.is_boolean())
        out.emplace_back(name, v.get<bool>());
      else if (whole(v))
        out.emplace_back(name, v.get<std::int64_t>());
      else if (v.is_number())
        out.emplace_back(name, v.get<double>());
      else if (all(whole))
        out.emplace_back(name, v.get<std::vector<std::int64_t>>());
      else if (all([](const Json& x) { return x.is_number(); }))
        out.emplace_back(name, v.get<std::vector<double>>());
      else if (all([](const Json& x) { return x.is_string(); }) || (v.is_array() && v.empty()))
        out.emplace_back(name, v.get<std::vector<std::string>>());
      else
        dropped.push_back(name);
    }
    return out;
  }
  std::optional<std::vector<std::int64_t>> integers_attribute(const char* name) const override {
    const auto it = attributes_.find(name);
    if (it == attributes_.end()) return std::nullopt;
    std::vector<std::int64_t> out;
    for (const Json& v : it->is_array() ? *it : Json::array({*it})) {
      if (v.is_boolean())
        out.push_back(v.get<bool>() ? 1 : 0);
      else if (v.is_number_integer() && !(v.is_number_unsigned() && v.get<std::uint64_t>() > INT64_MAX))
        out.push_back(v.get<std::int64_t>());
      else
        fail("attribute '{}' is {} (expected integers)", name, v.dump());
    }
    return out;
  }

 private:
  const ZarrStore& zarr_;
  std::string folder_;
  Json metadata_, attributes_;
};

}  // namespace

std::shared_ptr<const ZarrStore> ZarrStore::open(const char* op, std::string name, std::unique_ptr<Tree> tree) {
  std::shared_ptr<ZarrStore> s(new ZarrStore(op, std::move(name), std::move(tree)));
  s->version_ = s->tree_->size("zarr.json") ? 3 : s->tree_->size(".zgroup") ? 2 : 0;
  SCW_EXPECT_AS(FormatError, s->version_ != 0, op, "'{}' is not a Zarr group (neither zarr.json nor .zgroup is there)",
                s->name_);
  return s;
}

Json ZarrStore::load(const std::string& key) const {
  const auto size = tree_->size(key);
  if (!size) return nullptr;
  if (*size > kMaxMetadata) fail("/" + key, "has {} bytes of metadata (expected at most {})", *size, kMaxMetadata);
  std::vector<std::byte> text;
  if (!tree_->read(key, text)) return nullptr;
  try {
    return parse_json(text);
  } catch (const Damage& d) {
    fail("/" + key, "{}", d.what);
  }
}

Json ZarrStore::metadata(const std::string& folder, bool& is_group) const {
  if (version_ == 3) {
    Json j = load(join(folder, "zarr.json"));
    if (j.is_null()) return j;
    const bool known =
        j.is_object() && j.contains("node_type") && (j["node_type"] == "group" || j["node_type"] == "array");
    if (!known) fail("/" + folder, "its metadata are those of neither a group nor an array");
    is_group = j["node_type"] == "group";
    return j;
  }
  Json j = load(join(folder, ".zarray"));
  is_group = j.is_null();
  if (is_group) j = load(join(folder, ".zgroup"));
  if (!j.is_null() && !j.is_object()) fail("/" + folder, "its metadata are no mapping");
  return j;
}

Json ZarrStore::attributes(const std::string& folder, const Json& metadata) const {
  Json out = Json::object();
  if (version_ == 3) {
    if (metadata.contains("attributes")) out = metadata.at("attributes");
  } else if (Json j = load(join(folder, ".zattrs")); !j.is_null()) {
    out = std::move(j);
  }
  if (!out.is_object()) fail("/" + folder, "its attributes are no mapping");
  return out;
}

std::unique_ptr<Node> ZarrStore::root() const {
  bool is_group = true;
  Json j = metadata("", is_group);
  return std::make_unique<ZarrNode>(*this, "", is_group, std::move(j));
}

}  // namespace scw::io::zarr
