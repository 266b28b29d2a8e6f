#include "io/zarr_meta.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

namespace scw::io::zarr {

namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxRank = 32;
constexpr std::int64_t kMaxChunk = std::int64_t{1} << 40;
constexpr std::size_t kMaxElement = 1 << 20;

template <class... Args>
[[noreturn]] void damage(fmt::format_string<Args...> text, Args&&... args) {
  throw Damage{fmt::format(text, std::forward<Args>(args)...)};
}

const Json& member(const Json& j, const char* name) {
  if (!j.is_object() || !j.contains(name)) damage("its metadata has no '{}'", name);
  return j.at(name);
}
std::string text_member(const Json& j, const char* name) {
  const Json& m = member(j, name);
  if (!m.is_string()) damage("its metadata has a '{}' that is no text", name);
  return m.get<std::string>();
}

std::vector<std::int64_t> sizes(const Json& j, const char* name, std::int64_t least) {
  const Json& list = member(j, name);
  if (!list.is_array() || list.size() > kMaxRank) damage("its '{}' is not a list of at most {} sizes", name, kMaxRank);
  std::vector<std::int64_t> out;
  for (const Json& v : list) {
    const bool fits = v.is_number_integer() && (!v.is_number_unsigned() || v.get<std::uint64_t>() <= INT64_MAX);
    if (!fits || v.get<std::int64_t>() < least) damage("its '{}' holds {}", name, v.dump());
    out.push_back(v.get<std::int64_t>());
  }
  return out;
}

Type number(Kind kind, std::size_t size, bool is_signed, std::string name) {
  Type t;
  t.element = {kind, size, is_signed, std::move(name)};
  return t;
}
Type other(std::size_t size, std::string name) { return number(Kind::other, size, false, std::move(name)); }

std::optional<Type> named(std::string_view name) {
  const auto digits = name.find_first_of("0123456789");
  if (name == "bool") return number(Kind::boolean, 1, false, "bool");
  if (digits == name.npos) return std::nullopt;
  const std::string_view base = name.substr(0, digits);
  std::size_t bits = 0;
  const auto r = std::from_chars(name.data() + digits, name.data() + name.size(), bits);
  if (r.ec != std::errc{} || r.ptr != name.data() + name.size() || name[digits] == '0') return std::nullopt;
  const bool power = bits == 8 || bits == 16 || bits == 32 || bits == 64;
  if (base == "int" && power) return number(Kind::integer, bits / 8, true, std::string(name));
  if (base == "uint" && power) return number(Kind::integer, bits / 8, false, std::string(name));
  if (base == "float" && power && bits > 8) return number(Kind::floating, bits / 8, true, std::string(name));
  if (base == "complex" && (bits == 64 || bits == 128)) return other(bits / 8, std::string(name));
  return std::nullopt;
}

Type records(std::vector<std::pair<std::string, Type>> fields) {
  Type t = number(Kind::compound, 0, false, "records");
  for (auto& [name, type] : fields) {
    if (type.element.size == 0) damage("field '{}' has no fixed size", name);
    const std::size_t size = type.element.size;
    t.fields.push_back({std::move(name), std::move(type), t.element.size});
    t.element.size += size;
    if (t.element.size > kMaxElement) damage("its records are too long");
  }
  return t;
}

Type fixed_text(TextForm form, std::size_t bytes) {
  Type t = number(Kind::string, bytes, false, "fixed-length text");
  t.text = form;
  return t;
}

Type v2_type(const Json& d, int depth = 0) {
  if (d.is_array()) {
    if (depth > 8 || d.size() > 1 << 14) damage("its type is nested too deep or has too many fields");
    std::vector<std::pair<std::string, Type>> fields;
    for (const Json& f : d) {
      if (!f.is_array() || f.size() < 2 || !f[0].is_string()) damage("its type has a field {}", f.dump());
      Type t = v2_type(f[1], depth + 1);
      if (f.size() > 2) {  // an array in every record: carried, not decoded
        std::size_t n = 1;
        for (const Json& k : f[2].is_array() ? f[2] : Json::array({f[2]})) {
          if (!k.is_number_unsigned() || k.get<std::uint64_t>() > kMaxElement)
            damage("its type has a field {}", f.dump());
          n *= k.get<std::size_t>();
          if (n * t.element.size > kMaxElement) damage("its records are too long");
        }
        t = other(std::max<std::size_t>(1, n * t.element.size), "array");
      }
      fields.emplace_back(f[0].get<std::string>(), std::move(t));
    }
    return records(std::move(fields));
  }
  if (!d.is_string()) damage("its type is {}", d.dump());
  const std::string s = d.get<std::string>();
  if (s.size() < 2 || std::string_view("<>|=").find(s[0]) == std::string_view::npos) damage("its type is '{}'", s);
  if (s == "|O") return other(0, "object");
  std::size_t n = 0;
  std::string_view digits = std::string_view(s).substr(2);
  digits = digits.substr(0, digits.find('['));
  const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (r.ec != std::errc{} || n == 0 || n > kMaxElement) damage("its type is '{}'", s);
  Type t;
  switch (s[1]) {
    case 'b':
      t = n == 1 ? *named("bool") : other(n, s);
      break;
    case 'i':
    case 'u':
    case 'f':
    case 'c': {
      const char* base = s[1] == 'i' ? "int" : s[1] == 'u' ? "uint" : s[1] == 'f' ? "float" : "complex";
      t = named(fmt::format("{}{}", base, n * 8)).value_or(other(n, s));
      break;
    }
    case 'U':
      t = fixed_text(TextForm::utf32, n * 4);
      break;
    case 'S':
      t = fixed_text(TextForm::bytes, n);
      break;
    case 'M':
    case 'm':
      t = other(8, s);
      break;
    default:
      t = other(n, s);
  }
  t.swapped = s[0] == '>' && t.text != TextForm::bytes && (t.element.size > 1 || t.text == TextForm::utf32);
  return t;
}

Type v3_type(const Json& d, int depth = 0) {
  const std::string name = d.is_string() ? d.get<std::string>() : text_member(d, "name");
  const Json none = Json::object();
  const Json& c = d.is_object() && d.contains("configuration") ? d.at("configuration") : none;
  const auto length = [&](std::size_t unit) {
    const Json& n = member(c, "length_bytes");
    if (!n.is_number_unsigned() || n.get<std::uint64_t>() == 0 || n.get<std::uint64_t>() > kMaxElement ||
        n.get<std::uint64_t>() % unit != 0)
      damage("its type has a length of {} bytes", n.dump());
    return n.get<std::size_t>();
  };
  if (auto t = named(name)) return *t;
  if (name == "string" || name == "variable_length_utf8") {
    Type t = number(Kind::string, 0, false, "text");
    t.text = TextForm::vlen_utf8;
    return t;
  }
  if (name == "fixed_length_utf32") return fixed_text(TextForm::utf32, length(4));
  if (name == "null_terminated_bytes" || name == "fixed_length_ascii") return fixed_text(TextForm::bytes, length(1));
  if (name == "raw_bytes") return other(length(1), name);
  if (name == "structured" || name == "struct") {
    const Json& list = member(c, "fields");
    if (!list.is_array() || depth > 8 || list.size() > 1 << 14) damage("its type is nested too deep or has no fields");
    std::vector<std::pair<std::string, Type>> fields;
    for (const Json& f : list) {
      if (f.is_array() && f.size() == 2 && f[0].is_string())
        fields.emplace_back(f[0].get<std::string>(), v3_type(f[1], depth + 1));
      else
        fields.emplace_back(text_member(f, "name"), v3_type(member(f, "data_type"), depth + 1));
    }
    return records(std::move(fields));
  }
  if (name == "numpy.datetime64" || name == "numpy.timedelta64") return other(8, name);
  return other(0, name);
}

template <class T>
void put(std::byte* out, T v) {
  std::memcpy(out, &v, sizeof v);
}

double real(const Json& j) {
  if (j.is_number()) return j.get<double>();
  if (j.is_boolean()) return j.get<bool>() ? 1 : 0;
  const std::string s = j.is_string() ? j.get<std::string>() : "";
  if (s == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (s == "Infinity") return std::numeric_limits<double>::infinity();
  if (s == "-Infinity") return -std::numeric_limits<double>::infinity();
  damage("its fill value is {}", j.dump());
}

std::uint16_t half_bits(double v) {
  if (v == 0 || std::isnan(v) || std::isinf(v))
    return static_cast<std::uint16_t>((std::signbit(v) ? 0x8000 : 0) | (std::isnan(v)   ? 0x7E00
                                                                        : std::isinf(v) ? 0x7C00
                                                                                        : 0));
  int e = 0;
  const double m = std::frexp(std::abs(v), &e);  // m in [0.5, 1)
  if (e > 16) return static_cast<std::uint16_t>((v < 0 ? 0x8000 : 0) | 0x7C00);
  const double unit = std::ldexp(1.0, std::max(e - 11, -24));
  const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(m, e) / unit));
  const std::uint32_t exponent = e - 11 < -24 ? 0U : static_cast<std::uint32_t>(e - 1 + 15);
  const std::uint32_t bits = exponent == 0 ? steps : (exponent << 10) + steps - 1024;
  return static_cast<std::uint16_t>((v < 0 ? 0x8000U : 0U) | std::min(bits, 0x7C00U));
}

std::vector<std::byte> from_base64(const std::string& text) {
  std::vector<std::byte> out;
  std::uint32_t bits = 0;
  int n = 0;
  for (const char c : text) {
    const int v = c >= 'A' && c <= 'Z'   ? c - 'A'
                  : c >= 'a' && c <= 'z' ? c - 'a' + 26
                  : c >= '0' && c <= '9' ? c - '0' + 52
                  : c == '+'             ? 62
                  : c == '/'             ? 63
                                         : -1;
    if (v < 0) break;  // padding
    bits = bits << 6 | static_cast<std::uint32_t>(v);
    n += 6;
    if (n >= 8) {
      n -= 8;
      out.push_back(static_cast<std::byte>(bits >> n & 255U));
    }
  }
  return out;
}

void read_fill(ArrayMeta& m, const Json& fill) {
  const ElementType& e = m.type.element;
  m.fill.assign(e.size, std::byte{0});
  if (fill.is_null() || e.size == 0) {
    if (fill.is_string()) m.fill_text = fill.get<std::string>();
    return;
  }
  std::byte* out = m.fill.data();
  // (Hexadecimal: the bits of a floating-point number, version 3.)
  if (e.kind == Kind::floating && fill.is_string() && fill.get<std::string>().starts_with("0x")) {
    const std::string s = fill.get<std::string>();
    std::uint64_t bits = 0;
    const auto r = std::from_chars(s.data() + 2, s.data() + s.size(), bits, 16);
    if (r.ec != std::errc{} || r.ptr != s.data() + s.size()) damage("its fill value is '{}'", s);
    std::memcpy(out, &bits, std::min<std::size_t>(e.size, 8));
    return;
  }
  const auto floating = [](std::byte* to, std::size_t size, double v) {
    if (size == 2) put(to, half_bits(v));
    if (size == 4) put(to, static_cast<float>(v));
    if (size == 8) put(to, v);
  };
  if (e.kind == Kind::boolean) {
    put(out, static_cast<std::uint8_t>(fill.is_boolean() ? fill.get<bool>() : real(fill) != 0));
  } else if (e.kind == Kind::integer) {
    std::uint64_t bits = 0;
    if (fill.is_number_integer()) {
      bits =
          fill.is_number_unsigned() ? fill.get<std::uint64_t>() : static_cast<std::uint64_t>(fill.get<std::int64_t>());
    } else {
      const double v = real(fill);
      if (!(std::abs(v) < 0x1p53)) damage("its fill value is {}", fill.dump());
      bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(v));
    }
    std::memcpy(out, &bits, e.size);
  } else if (e.kind == Kind::floating) {
    floating(out, e.size, real(fill));
  } else if (e.name.starts_with("complex") && fill.is_array() && fill.size() == 2) {
    floating(out, e.size / 2, real(fill[0]));
    floating(out + e.size / 2, e.size / 2, real(fill[1]));
  } else if (fill.is_string() && (e.kind != Kind::string || m.type.text == TextForm::bytes)) {
    const auto bytes = from_base64(fill.get<std::string>());
    std::copy_n(bytes.begin(), std::min(bytes.size(), e.size), out);
  } else if (fill.is_string() && m.type.text == TextForm::utf32) {
    const std::string s = fill.get<std::string>();  // ASCII, in practice nothing at all
    for (std::size_t i = 0; i < s.size() && 4 * i < e.size; ++i) out[4 * i] = static_cast<std::byte>(s[i]);
  }
}

std::optional<Codec> codec_of(std::string_view id, const Json& c, std::size_t element) {
  if (id == "zlib") return Codec{CodecId::zlib};
  if (id == "gzip") return Codec{CodecId::gzip};
  if (id == "zstd") return Codec{CodecId::zstd};
  if (id == "lz4") return Codec{CodecId::lz4};
  if (id == "blosc") return Codec{CodecId::blosc};
  if (id == "crc32c") return Codec{CodecId::crc32c};
  if (id == "shuffle") {
    if (c.is_object() && c.contains("elementsize")) {
      const Json& n = c.at("elementsize");
      if (!n.is_number_unsigned() || n.get<std::uint64_t>() == 0 || n.get<std::uint64_t>() > 256)
        damage("its shuffle has elements of {} bytes", n.dump());
      element = n.get<std::size_t>();
    }
    return Codec{CodecId::shuffle, element};
  }
  return std::nullopt;
}

void check_chunks(ArrayMeta& m) {
  if (m.chunk.size() != m.shape.size() || m.shard.size() != m.shape.size())
    damage("has {} dimensions, but chunks of {}", m.shape.size(), m.chunk.size());
  std::int64_t elements = 1, chunk = 1, shard = 1;
  for (std::size_t k = 0; k < m.shape.size(); ++k) {
    if (__builtin_mul_overflow(elements, m.shape[k], &elements))
      damage("declares more elements than 64 bits can count");
    if (__builtin_mul_overflow(chunk, m.chunk[k], &chunk) || __builtin_mul_overflow(shard, m.shard[k], &shard) ||
        shard > kMaxChunk)
      damage("declares chunks that are too large");
    if (m.shard[k] % m.chunk[k] != 0)
      damage("its shards of {} cannot be cut into chunks of {}", m.shard[k], m.chunk[k]);
  }
  std::int64_t bytes = 0;
  const auto size = static_cast<std::int64_t>(std::max<std::size_t>(1, m.type.element.size));
  if (__builtin_mul_overflow(elements, size, &bytes)) damage("declares more bytes than 64 bits can count");
  if (__builtin_mul_overflow(shard, size, &bytes) || bytes > kMaxChunk) damage("declares chunks that are too large");
}

/// The codecs of version 3. `unsupported` gets the name of one that is not known.
Pipeline v3_pipeline(const Json& list, const Type& type, std::size_t rank, std::string& unsupported,
                     const Json** shards) {
  Pipeline p;
  if (!list.is_array() || list.size() > 32) damage("its codecs are {}", list.dump());
  bool is_bytes = false;
  for (const Json& entry : list) {
    std::string name = entry.is_string() ? entry.get<std::string>() : text_member(entry, "name");
    static const Json none = Json::object();  // `shards` may be left pointing at it
    const Json& c = entry.is_object() && entry.contains("configuration") ? entry.at("configuration") : none;
    if (name.starts_with("numcodecs.")) name.erase(0, 10);
    if (name == "transpose") {
      if (is_bytes || !p.order.empty()) damage("its codecs are {}", list.dump());
      const Json& order = member(c, "order");
      if (order == "C") continue;
      if (order == "F") {
        for (std::size_t k = rank; k-- > 0;) p.order.push_back(k);
        continue;
      }
      for (const auto v : sizes(c, "order", 0)) p.order.push_back(static_cast<std::size_t>(v));
      auto sorted = p.order;
      std::sort(sorted.begin(), sorted.end());
      for (std::size_t k = 0; k < sorted.size(); ++k)
        if (sorted[k] != k || sorted.size() != rank) damage("its codecs are {}", list.dump());
    } else if (name == "bytes" || name == "endian") {
      if (is_bytes) damage("its codecs are {}", list.dump());
      is_bytes = true;
      p.swapped = c.contains("endian") && c.at("endian") == "big";
    } else if (name == "vlen-utf8" && type.text == TextForm::vlen_utf8) {
      if (is_bytes) damage("its codecs are {}", list.dump());
      is_bytes = true;
    } else if (name == "sharding_indexed" && shards != nullptr && !is_bytes && list.size() == 1) {
      is_bytes = true;
      *shards = &c;
    } else if (auto known = codec_of(name, c, std::max<std::size_t>(1, type.element.size)); known && is_bytes) {
      p.codecs.push_back(*known);
    } else {
      unsupported = name;
    }
  }
  if (!is_bytes && unsupported.empty()) damage("its codecs are {}", list.dump());
  return p;
}

}  // namespace

Json parse_json(const std::vector<std::byte>& text) {
  const auto* begin = reinterpret_cast<const char*>(text.data());
  try {
    return Json::parse(begin, begin + text.size(), [](int depth, Json::parse_event_t, Json&) {
      if (depth > kMaxDepth) damage("its metadata are nested more than {} deep", kMaxDepth);
      return true;
    });
  } catch (const Json::exception& e) {
    damage("its metadata are damaged ({})", e.what());
  }
}

std::string ArrayMeta::key(const std::vector<std::int64_t>& at) const {
  std::string out = v3_keys ? "c" : "";
  for (std::size_t k = 0; k < at.size(); ++k) {
    if (k > 0 || v3_keys) out += separator;
    out += std::to_string(at[k]);
  }
  return out.empty() ? "0" : out;
}

std::int64_t ArrayMeta::chunk_elements() const {
  std::int64_t n = 1;
  for (const auto k : chunk) n *= k;  // checked when it was parsed
  return n;
}

ArrayMeta parse_v2(const Json& j) try {
  if (!j.is_object() || member(j, "zarr_format") != 2) damage("its metadata are not of version 2");
  ArrayMeta m;
  m.shape = sizes(j, "shape", 0);
  m.chunk = sizes(j, "chunks", 1);
  m.shard = m.chunk;
  m.type = v2_type(member(j, "dtype"));
  const Json& filters = member(j, "filters");
  const Json& compressor = member(j, "compressor");
  const bool is_object = m.type.element.name == "object";
  if (filters.is_array()) {
    if (filters.size() > 32) damage("its filters are {}", filters.dump());
    for (const Json& f : filters) {
      const std::string id = text_member(f, "id");
      if (is_object && id == "vlen-utf8" && m.type.text == TextForm::none && m.pipeline.codecs.empty()) {
        m.type = number(Kind::string, 0, false, "text");
        m.type.text = TextForm::vlen_utf8;
      } else if (auto known = codec_of(id, f, std::max<std::size_t>(1, m.type.element.size))) {
        m.pipeline.codecs.push_back(*known);
      } else {
        m.unsupported = id;
      }
    }
  } else if (!filters.is_null()) {
    damage("its filters are {}", filters.dump());
  }
  if (!compressor.is_null()) {
    const std::string id = text_member(compressor, "id");
    if (auto known = codec_of(id, compressor, std::max<std::size_t>(1, m.type.element.size)))
      m.pipeline.codecs.push_back(*known);
    else
      m.unsupported = id;
  }
  if (m.type.element.size == 0 && m.type.text == TextForm::none && m.unsupported.empty())
    m.unsupported = m.type.element.name;
  const std::string order = text_member(j, "order");
  if (order != "C" && order != "F") damage("its order is '{}'", order);
  if (order == "F" && m.shape.size() > 1)
    for (std::size_t k = m.shape.size(); k-- > 0;) m.pipeline.order.push_back(k);
  m.pipeline.swapped = m.type.swapped;
  if (j.contains("dimension_separator")) {
    const std::string s = text_member(j, "dimension_separator");
    if (s != "." && s != "/") damage("its dimension_separator is '{}'", s);
    m.separator = s[0];
  }
  check_chunks(m);
  read_fill(m, member(j, "fill_value"));
  return m;
} catch (const Json::exception& e) {
  damage("its metadata are damaged ({})", e.what());
}

ArrayMeta parse_v3(const Json& j) try {
  if (!j.is_object() || member(j, "zarr_format") != 3 || member(j, "node_type") != "array")
    damage("its metadata are not those of an array of version 3");
  ArrayMeta m;
  m.shape = sizes(j, "shape", 0);
  m.type = v3_type(member(j, "data_type"));
  const Json& grid = member(j, "chunk_grid");
  if (text_member(grid, "name") != "regular") damage("its chunks form a grid '{}'", text_member(grid, "name"));
  m.shard = sizes(member(grid, "configuration"), "chunk_shape", 1);
  m.chunk = m.shard;
  const Json& keys = member(j, "chunk_key_encoding");
  const std::string how = text_member(keys, "name");
  if (how != "default" && how != "v2") damage("its chunk_key_encoding is '{}'", how);
  m.v3_keys = how == "default";
  m.separator = m.v3_keys ? '/' : '.';
  if (keys.contains("configuration") && keys.at("configuration").contains("separator")) {
    const std::string s = text_member(keys.at("configuration"), "separator");
    if (s != "." && s != "/") damage("its chunk keys are separated by '{}'", s);
    m.separator = s[0];
  }
  const Json* shards = nullptr;
  m.pipeline = v3_pipeline(member(j, "codecs"), m.type, m.shape.size(), m.unsupported, &shards);
  if (shards != nullptr) {
    m.sharded = true;
    m.chunk = sizes(*shards, "chunk_shape", 1);
    m.pipeline = v3_pipeline(member(*shards, "codecs"), m.type, m.shape.size(), m.unsupported, nullptr);
    m.index =
        v3_pipeline(member(*shards, "index_codecs"), *named("uint64"), m.shape.size() + 1, m.unsupported, nullptr);
    for (const Codec& c : m.index.codecs)
      if (c.id != CodecId::crc32c) m.unsupported = "compressed index of shards";
    if (!m.index.order.empty()) m.unsupported = "transposed index of shards";
    if (shards->contains("index_location")) {
      const std::string where = text_member(*shards, "index_location");
      if (where != "start" && where != "end") damage("its index_location is '{}'", where);
      m.index_at_end = where == "end";
    }
  }
  if (j.contains("storage_transformers") && !j.at("storage_transformers").empty())
    m.unsupported = "storage transformers";
  if (m.type.element.size == 0 && m.type.text == TextForm::none && m.unsupported.empty())
    m.unsupported = m.type.element.name;
  check_chunks(m);
  read_fill(m, member(j, "fill_value"));
  return m;
} catch (const Json::exception& e) {
  damage("its metadata are damaged ({})", e.what());
}

Json v2_dtype(std::string_view name) {
  const auto t = named(name);
  if (!t) return nullptr;
  const char kind = t->element.kind == Kind::boolean    ? 'b'
                    : t->element.kind == Kind::floating ? 'f'
                    : t->element.kind == Kind::other    ? 'c'
                    : t->element.is_signed              ? 'i'
                                                        : 'u';
  return fmt::format("{}{}{}", t->element.size == 1 ? '|' : '<', kind, t->element.size);
}

std::string to_base64(const std::vector<std::byte>& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t v = 0;
    for (std::size_t k = 0; k < 3; ++k)
      v = v << 8 | (i + k < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[v >> (18 - 6 * k) & 63U] : '=';
  }
  return out;
}

}  // namespace scw::io::zarr
