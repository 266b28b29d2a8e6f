#include "io/hdf5_structure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "io/hdf5_cursor.hpp"

namespace scw::io::h5 {
namespace {

constexpr unsigned kMaxRank = 32;
constexpr std::uint64_t kFreeBytes = std::uint64_t{64} << 20;

}  // namespace

/// A region of an object header that holds messages.
struct Structure::Chunk {
  std::uint64_t address = 0, bytes = 0;
};

struct Structure::Type {
  unsigned cls = 0;
  std::uint64_t size = 0;
  bool is_text = false;  // a sequence that is a string
  std::vector<StoredField> fields;
  struct Part;
  std::vector<Part> parts;     // that hold references to the global heap: fields, or elements of an array
  std::shared_ptr<Type> base;  // of a sequence
};

struct Structure::Type::Part {
  std::uint64_t offset = 0, count = 1;
  std::shared_ptr<Type> type;
};

struct Structure::Space {
  std::vector<std::uint64_t> dims, most;  // now, and at most
  std::uint64_t count = 1;
};

struct Structure::Layout {
  unsigned cls = 0;
  std::uint64_t address = kUndefined, bytes = 0;
  std::vector<std::uint64_t> chunk;  // with the element size at the end
  bool tree = false;                 // chunks are listed in a version 1 tree
  unsigned index = 0;                // or in one of the newer ways
};

/// What the messages of a header said, the first of each kind.
struct Structure::Object {
  std::vector<StoredChunk> chunks;
  std::optional<Type> type;
  std::optional<Space> space;
  std::optional<Layout> layout;
  std::optional<std::uint64_t> fill_bytes;
  std::vector<std::vector<std::uint8_t>> fills;  // values
  bool filtered = false;
};

std::vector<std::uint8_t> Structure::load(std::uint64_t address, std::uint64_t n, const char* what) const {
  if (n > size_) damage("{} at {} is larger than the file", what, address);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n));
  if (!read_(address, bytes.size(), bytes.data())) damage("{} at {} is outside the file", what, address);
  return bytes;
}

void Structure::open() {
  const auto head = load(0, 16, "the superblock");
  const unsigned version = head[8];
  require(version <= 3, "the superblock has an unknown version");
  const std::size_t sizes = version < 2 ? 13 : 9;
  require(head[sizes] == 8 && head[sizes + 1] == 8, "addresses are not of 8 bytes");
  if (version >= 2) {
    // Protected by a checksum; the root group is checked when it is opened.
    const auto rest = load(12, 36, "the superblock");
    Cursor c{rest.data(), rest.size()};
    c.skip(8);
    const auto extension = c.take(8);
    c.skip(8);
    if (extension != kUndefined) check_object(extension);
    check_object(c.take(8));
    return;
  }
  const std::size_t more = version == 1 ? 4 : 0;
  const auto rest = load(16, 80 + more, "the superblock");
  Cursor c{rest.data(), rest.size()};
  group_leaf_k_ = static_cast<unsigned>(c.take(2));
  group_node_k_ = static_cast<unsigned>(c.take(2));
  c.skip(4);
  if (version == 1) {
    chunk_node_k_ = static_cast<unsigned>(c.take(2));
    c.skip(2);
  }
  require(group_leaf_k_ > 0 && group_node_k_ > 0 && chunk_node_k_ > 0 && group_leaf_k_ < 16384 &&
              group_node_k_ < 16384 && chunk_node_k_ < 16384,
          "the superblock declares impossible tree nodes");
  c.skip(8);  // base address
  require(c.take(8) == kUndefined, "the superblock has free-space information where none belongs");
  c.skip(8);  // end of file: the library compares it
  require(c.take(8) == kUndefined, "the file needs a driver that scwarp does not have");
  c.skip(8);  // name of the root
  const auto root = c.take(8);
  const auto cached = c.take(4);
  c.skip(4);
  const auto tree = c.take(8), heap = c.take(8);
  check_object(root);
  if (cached == 1) check_group(tree, heap);
}

void Structure::check_object(std::uint64_t address) {
  if (checked_.contains(address)) return;
  require(address != kUndefined && address < size_, "an object header is outside the file");
  Object o;
  std::vector<Chunk> chunks;
  int version = 1;
  bool with_order = false;
  const auto prefix = load(address, 16, "an object header");
  if (std::memcmp(prefix.data(), "OHDR", 4) == 0) {
    version = 2;
    const unsigned flags = prefix[5];
    with_order = (flags & 4U) != 0;
    std::size_t at = 6;
    if ((flags & 0x20U) != 0) at += 16;
    if ((flags & 0x10U) != 0) at += 4;
    const std::size_t width = std::size_t{1} << (flags & 3U);
    const auto head = load(address, at + width, "an object header");
    std::uint64_t bytes = 0;
    std::memcpy(&bytes, head.data() + at, width);
    require(prefix[4] == 2 && bytes < size_, "an object header is damaged");
    check_messages(load(address + at + width, bytes, "an object header"), version, with_order, chunks, o);
  } else {
    require(prefix[0] == 1, "an object header has an unknown version");
    std::uint32_t bytes = 0;
    std::memcpy(&bytes, prefix.data() + 8, 4);
    check_messages(load(address + 16, bytes, "an object header"), version, with_order, chunks, o);
  }
  std::set<std::uint64_t> seen;
  std::uint64_t total = 0;
  for (std::size_t k = 0; k < chunks.size(); ++k) {
    const Chunk c = chunks[k];  // the vector grows
    total += c.bytes;
    require(seen.insert(c.address).second && c.bytes <= size_ && total <= size_, "an object header goes in circles");
    auto bytes = load(c.address, c.bytes, "a part of an object header");
    if (version == 2) {
      require(bytes.size() >= 8 && std::memcmp(bytes.data(), "OCHK", 4) == 0, "a part of an object header is damaged");
      bytes.erase(bytes.begin(), bytes.begin() + 4);
      bytes.resize(bytes.size() - 4);  // checksum
    }
    check_messages(std::move(bytes), version, with_order, chunks, o);
  }
  finish(o);
  if (o.type && !o.type->fields.empty())
    records_[address] = {static_cast<std::size_t>(o.type->size), std::move(o.type->fields)};
  if (o.layout && o.layout->tree && o.layout->chunk.size() <= 3) chunks_[address] = std::move(o.chunks);
  checked_.insert(address);
}

const std::vector<StoredChunk>* Structure::chunks(std::uint64_t address) const {
  const auto it = chunks_.find(address);
  return it == chunks_.end() ? nullptr : &it->second;
}

std::vector<StoredField> Structure::record(std::uint64_t address, std::size_t& record_bytes) const {
  const auto it = records_.find(address);
  if (it == records_.end()) return {};
  record_bytes = it->second.bytes;
  return it->second.fields;
}

void Structure::check_messages(std::vector<std::uint8_t> bytes, int version, bool with_order, std::vector<Chunk>& more,
                               Object& o) {
  Cursor c{bytes.data(), bytes.size()};
  const std::size_t head = version == 1 ? 8 : with_order ? 6 : 4;
  while (c.n >= head) {
    const auto type = static_cast<unsigned>(c.take(version == 1 ? 2 : 1));
    const auto size = c.take(2);
    const auto flags = static_cast<unsigned>(c.take(1));
    c.skip(version == 1 ? 3 : with_order ? 2 : 0);
    require(version == 2 || size % 8 == 0, "a header message has an odd length");
    check_message(type, flags, c.part(size), more, o);
  }
  require(version == 2 || c.n == 0, "an object header has bytes left over");
}

void Structure::check_message(unsigned type, unsigned flags, Cursor c, std::vector<Chunk>& more, Object& o) {
  const bool shared = (flags & 2U) != 0;
  require(!shared || (type != 1 && type != 3 && type != 5 && type != 8 && type != 11 && type != 12),
          "it shares parts of its header with other objects");
  switch (type) {
    case 0x01: {
      auto space = check_space(c);
      if (!o.space) o.space = std::move(space);
      break;
    }
    case 0x02: {  // link info
      require(c.take(1) == 0, "link information has an unknown version");
      const auto f = c.take(1);
      c.skip(f & 1U ? 8 : 0);
      const auto heap = c.take(8), by_name = c.take(8), by_order = f & 2U ? c.take(8) : kUndefined;
      if (heap != kUndefined) check_dense(heap, by_name, by_order, false);
      break;
    }
    case 0x03: {
      auto t = check_type(c, 0);
      if (!o.type) o.type = std::move(t);
      break;
    }
    case 0x04: {  // fill value, old
      const auto n = c.take(4);
      const Cursor value = c.part(n);
      if (!o.fill_bytes) o.fill_bytes = n;
      if (n > 0) o.fills.emplace_back(value.p, value.p + value.n);
      break;
    }
    case 0x05: {
      const auto version = c.take(1);
      require(version >= 1 && version <= 3, "a fill value has an unknown version");
      bool defined = true;
      if (version < 3) {
        c.skip(2);
        const auto d = c.take(1);
        defined = version == 1 || d != 0;
      } else {
        defined = (c.take(1) & 0x20U) != 0;
      }
      if (!defined) break;
      const auto n = c.take(4);
      require(n < 0x80000000U, "a fill value is damaged");
      const Cursor value = c.part(n);
      if (n > 0) {
        o.fill_bytes = n;
        o.fills.emplace_back(value.p, value.p + value.n);
      }
      break;
    }
    case 0x06:
      check_link(c);
      break;
    case 0x07:
      damage("it is stored in another file; scwarp reads what is in the file itself");
    case 0x08:
      check_layout(c, o);
      break;
    case 0x0A: {  // group info
      require(c.take(1) == 0, "group information has an unknown version");
      const auto f = c.take(1);
      c.skip((f & 1U ? 4 : 0) + (f & 2U ? 4 : 0));
      break;
    }
    case 0x0B:
      check_filters(c, o);
      break;
    case 0x0C:
      check_attribute(c);
      break;
    case 0x10: {
      const auto address = c.take(8), bytes = c.take(8);
      more.push_back({address, bytes});
      require(more.size() < 65536, "an object header has too many parts");
      break;
    }
    case 0x11: {
      const auto tree = c.take(8), heap = c.take(8);
      check_group(tree, heap);
      break;
    }
    case 0x15: {  // attribute info
      require(c.take(1) == 0, "attribute information has an unknown version");
      const auto f = c.take(1);
      c.skip(f & 1U ? 2 : 0);
      const auto heap = c.take(8), by_name = c.take(8), by_order = f & 2U ? c.take(8) : kUndefined;
      if (heap != kUndefined) check_dense(heap, by_name, by_order, true);
      break;
    }
    case 0x0F:
    case 0x13:
    case 0x14:
    case 0x16:
    case 0x17:
    case 0x18:
      break;  // only in the superblock's extension, which has a checksum; or small and fixed
    default:
      break;  // nil, comments, times
  }
}

Structure::Space Structure::check_space(Cursor& c) const {
  Space s;
  const auto version = c.take(1);
  require(version == 1 || version == 2, "a dataspace has an unknown version");
  const auto rank = c.take(1);
  const auto flags = c.take(1);
  const auto kind = c.take(1);
  if (version == 1) c.skip(4);
  require(rank <= kMaxRank && (version == 1 || kind <= 2), "a dataspace is damaged");
  for (std::uint64_t k = 0; k < rank; ++k) {
    s.dims.push_back(c.take(8));
    require(!__builtin_mul_overflow(s.count, s.dims.back(), &s.count), "a dataspace is too large");
  }
  if ((flags & 1U) != 0)
    for (std::uint64_t k = 0; k < rank; ++k) {
      s.most.push_back(c.take(8));
      require(s.most[k] >= s.dims[k], "a dataspace is larger than its limit");
    }
  else
    s.most = s.dims;
  if (version == 1 && (flags & 2U) != 0) c.skip(8 * rank);
  if (version == 2 && kind == 2) s.count = 0;
  return s;
}

Structure::Type Structure::check_type(Cursor& c, int depth) const {
  require(depth < 8, "a datatype is nested too deep");
  Type t;
  const auto head = c.take(1);
  const unsigned version = static_cast<unsigned>(head >> 4);
  t.cls = static_cast<unsigned>(head & 15U);
  const auto bits = c.take(3);
  t.size = c.take(4);
  require(version >= 1 && version <= 4 && t.size > 0 && t.size < 0x40000000U, "a datatype is damaged");
  const auto field = [&](std::uint64_t offset, std::uint64_t width) { return offset + width <= t.size * 8; };
  const auto name = [&](bool padded) {
    const auto* end = static_cast<const std::uint8_t*>(std::memchr(c.p, 0, c.n));
    require(end != nullptr, "a name in a datatype does not end");
    const std::string text(reinterpret_cast<const char*>(c.p), static_cast<std::size_t>(end - c.p));
    const std::size_t n = text.size() + 1;
    c.skip(padded ? (n + 7) / 8 * 8 : n);
    return text;
  };
  switch (t.cls) {
    case 0:
    case 4: {
      const auto offset = c.take(2), width = c.take(2);
      require(width > 0 && field(offset, width), "an integer type is damaged");
      break;
    }
    case 1: {
      const auto offset = c.take(2), width = c.take(2);
      const auto e_at = c.take(1), e_width = c.take(1), m_at = c.take(1), m_width = c.take(1);
      c.skip(4);
      const auto sign = bits >> 8 & 255U;
      require(width > 0 && field(offset, width) && e_width > 0 && m_width > 0 && e_at + e_width <= width &&
                  m_at + m_width <= width && sign < width && (e_at >= m_at + m_width || m_at >= e_at + e_width) &&
                  (sign < e_at || sign >= e_at + e_width) && (sign < m_at || sign >= m_at + m_width),
              "a floating-point type is damaged");
      break;
    }
    case 2:
      c.skip(2);
      break;
    case 3:
      break;
    case 5:
      c.skip(bits & 255U);
      break;
    case 6: {
      const auto n = bits & 0xFFFFU;
      require(n > 0, "a record type has no fields");
      std::set<std::string> names;
      for (std::uint64_t k = 0; k < n; ++k) {
        StoredField f;
        f.name = name(version < 3);
        std::size_t width = 4;
        if (version >= 3) {
          width = 1;
          while (width < 4 && t.size >> (8 * width) != 0) ++width;
        }
        f.offset = static_cast<std::size_t>(c.take(width));
        std::uint64_t elements = 1;
        if (version == 1) {
          const auto rank = c.take(1);
          require(rank <= 4, "a record type is damaged");
          c.skip(11);
          for (unsigned d = 0; d < 4; ++d) {
            const auto extent = c.take(4);
            if (d < rank) require(!__builtin_mul_overflow(elements, extent, &elements), "a record type is damaged");
          }
        }
        Type member = check_type(c, depth + 1);
        std::uint64_t bytes = 0;
        require(!__builtin_mul_overflow(elements, member.size, &bytes) && f.offset <= t.size &&
                    bytes <= t.size - f.offset && names.insert(f.name).second,
                "a field is outside its record");
        f.is_text = member.is_text;
        if (member.base || !member.parts.empty())
          t.parts.push_back({f.offset, elements, std::make_shared<Type>(std::move(member))});
        t.fields.push_back(std::move(f));
      }
      break;
    }
    case 7:
      require(t.size == 8 || t.size == 12, "a reference type is damaged");
      break;
    case 8: {
      const auto n = bits & 0xFFFFU;
      const Type base = check_type(c, depth + 1);
      require(base.cls == 0 && base.size == t.size, "an enumeration is damaged");
      for (std::uint64_t k = 0; k < n; ++k) name(version < 3);
      c.skip(n * base.size);
      break;
    }
    case 9: {
      Type base = check_type(c, depth + 1);
      require((bits & 15U) <= 1 && t.size == 16, "a sequence type is damaged");
      t.is_text = (bits & 15U) == 1;
      require(!t.is_text || (base.size == 1 && (base.cls == 3 || base.cls == 0)), "a text type is damaged");
      t.base = std::make_shared<Type>(std::move(base));
      break;
    }
    case 10: {
      const auto rank = c.take(1);
      require(rank > 0 && rank <= kMaxRank && version >= 2, "an array type is damaged");
      if (version == 2) c.skip(3);
      std::uint64_t elements = 1;
      for (std::uint64_t k = 0; k < rank; ++k) {
        const auto extent = c.take(4);
        require(extent > 0 && !__builtin_mul_overflow(elements, extent, &elements), "an array type is damaged");
      }
      if (version == 2) c.skip(4 * rank);
      Type base = check_type(c, depth + 1);
      std::uint64_t bytes = 0;
      require(!__builtin_mul_overflow(elements, base.size, &bytes) && bytes == t.size, "an array type is damaged");
      if (base.base || !base.parts.empty()) t.parts.push_back({0, elements, std::make_shared<Type>(std::move(base))});
      break;
    }
    default:
      damage("a datatype of unknown class {}", t.cls);
  }
  return t;
}

void Structure::check_filters(Cursor c, Object& o) const {
  const auto version = c.take(1), n = c.take(1);
  require((version == 1 || version == 2) && n > 0 && n <= 32, "a list of filters is damaged");
  if (version == 1) c.skip(6);
  for (std::uint64_t k = 0; k < n; ++k) {
    const auto id = c.take(2);
    const auto name = version == 1 || id >= 256 ? c.take(2) : 0;
    c.skip(2);
    const auto values = c.take(2);
    require(version == 2 || name % 8 == 0, "the name of a filter is damaged");
    if (name > 0) {
      Cursor text = c.part(name);
      require(std::memchr(text.p, 0, text.n) != nullptr || version == 2, "the name of a filter does not end");
    }
    // What the library's own filters take without asking. (A shuffle without parameters is one that was not applied.)
    const std::uint64_t expected[] = {0, 1, 1, 0, 4, 5, 20};
    require(id == 0 || id > 6 || (id == 5 ? values >= 5 : values == expected[id] || (id == 2 && values == 0)),
            "a filter has wrong parameters");
    c.skip(4 * values + (version == 1 && values % 2 == 1 ? 4 : 0));
  }
  o.filtered = true;
}

void Structure::check_link(Cursor c) const {
  require(c.take(1) == 1, "a link has an unknown version");
  const auto flags = c.take(1);
  require((flags & 0xE0U) == 0, "a link is damaged");
  const auto kind = (flags & 8U) != 0 ? c.take(1) : 0;
  if ((flags & 4U) != 0) c.skip(8);
  if ((flags & 16U) != 0) c.skip(1);
  const auto n = c.take(std::size_t{1} << (flags & 3U));
  require(n > 0, "a link has no name");
  c.skip(n);
  if (kind == 0)
    c.skip(8);
  else
    c.skip(c.take(2));
}

void Structure::check_layout(Cursor c, Object& o) {
  Layout l;
  const auto version = c.take(1);
  require(version >= 1 && version <= 4, "a layout is of a version that only newer HDF5 libraries know");
  if (version <= 2) {
    const auto rank = c.take(1);
    l.cls = static_cast<unsigned>(c.take(1));
    require(rank > 0 && rank <= kMaxRank + 1 && l.cls <= 2, "a layout is damaged");
    c.skip(5);
    if (l.cls != 0) l.address = c.take(8);
    for (std::uint64_t k = 0; k < rank; ++k) l.chunk.push_back(c.take(4));
    if (l.cls == 0) {
      l.bytes = c.take(4);
      c.skip(l.bytes);
    } else if (l.cls == 1) {
      l.chunk.clear();
      l.bytes = kUndefined;  // as the dataspace says
    }
    l.tree = l.cls == 2;
  } else {
    l.cls = static_cast<unsigned>(c.take(1));
    if (l.cls == 0) {
      l.bytes = c.take(2);
      c.skip(l.bytes);
    } else if (l.cls == 1) {
      l.address = c.take(8);
      l.bytes = c.take(8);
    } else if (l.cls == 2 && version == 3) {
      const auto rank = c.take(1);
      require(rank >= 2 && rank <= kMaxRank + 1, "a layout is damaged");
      l.address = c.take(8);
      for (std::uint64_t k = 0; k < rank; ++k) l.chunk.push_back(c.take(4));
      l.tree = true;
    } else {
      require(l.cls <= 3 && version == 4, "a layout is damaged");
      if (l.cls == 2) {
        const auto flags = c.take(1), rank = c.take(1), width = c.take(1);
        require(rank >= 2 && rank <= kMaxRank + 1 && width >= 1 && width <= 8, "a layout is damaged");
        for (std::uint64_t k = 0; k < rank; ++k) l.chunk.push_back(c.take(static_cast<std::size_t>(width)));
        l.index = static_cast<unsigned>(c.take(1));
        require(l.index >= 1 && l.index <= 5, "chunks are listed in an unknown way");
        if (l.index == 1 && (flags & 2U) != 0) {
          l.bytes = c.take(8);
          c.skip(4);
        }
        c.skip(l.index == 3 ? 1 : l.index == 4 ? 5 : l.index == 5 ? 6 : 0);
        l.address = c.take(8);
      }
    }
  }
  if (!o.layout) o.layout = std::move(l);
}

void Structure::check_attribute(Cursor c) {
  const auto version = c.take(1);
  require(version >= 1 && version <= 3, "an attribute has an unknown version");
  const auto flags = c.take(1);
  require(version == 1 || flags == 0, "an attribute shares its type with other objects");
  const auto name = c.take(2), type_bytes = c.take(2), space_bytes = c.take(2);
  if (version == 3) c.skip(1);
  const auto padded = [version](std::uint64_t n) { return version == 1 ? (n + 7) / 8 * 8 : n; };
  Cursor text = c.part(padded(name));
  require(name > 0 && text.p[name - 1] == 0 && std::memchr(text.p, 0, name) == text.p + name - 1,
          "the name of an attribute is damaged");
  Cursor type_part = c.part(padded(type_bytes));
  type_part.n = static_cast<std::size_t>(type_bytes);
  const Type type = check_type(type_part, 0);
  Cursor space_part = c.part(padded(space_bytes));
  space_part.n = static_cast<std::size_t>(space_bytes);
  const Space space = check_space(space_part);
  std::uint64_t bytes = 0;
  require(!__builtin_mul_overflow(space.count, type.size, &bytes) && bytes <= c.n,
          "the value of an attribute is cut off");
  check_values(type, c.p, space.count);
}

/// The texts in one collection of the global heap.
const Structure::HeapObjects& Structure::heap(std::uint64_t address) {
  const auto known = heaps_.find(address);
  if (known != heaps_.end()) return known->second;
  const auto head = load(address, 16, "a heap of texts");
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, head.data() + 8, 8);
  require(std::memcmp(head.data(), "GCOL\x01", 5) == 0 && bytes >= 16 && bytes <= size_, "a heap of texts is damaged");
  heap_bytes_ += bytes;
  require(heap_bytes_ <= size_ + kFreeBytes, "heaps of texts overlap");
  const auto all = load(address, bytes, "a heap of texts");
  HeapObjects objects;
  for (std::size_t at = 16; all.size() - at >= 16;) {
    Cursor c{all.data() + at, 16};
    const auto i = static_cast<std::uint32_t>(c.take(2));
    c.skip(6);
    const auto n = c.take(8);
    if (i == 0) {
      // Free space counts its own head.
      require(n >= 16 && n <= all.size() - at, "a heap of texts is damaged");
      at += static_cast<std::size_t>(n);
      continue;
    }
    require(n <= all.size() - at - 16, "a heap of texts is damaged");
    require(objects.emplace(i, std::pair{address + at + 16, n}).second, "a heap of texts has two of the same number");
    at += 16 + std::min<std::size_t>((static_cast<std::size_t>(n) + 7) / 8 * 8, all.size() - at - 16);
  }
  return heaps_.emplace(address, std::move(objects)).first->second;
}

/// References to the global heap, wherever they are in values: the library copies as much as the heap has, into as much
/// room as the reference says.
void Structure::check_values(const Type& type, const std::uint8_t* data, std::uint64_t count) {
  if (!type.base && type.parts.empty()) return;
  for (std::uint64_t k = 0; k < count; ++k) {
    const std::uint8_t* value = data + k * type.size;
    for (const auto& part : type.parts) check_values(*part.type, value + part.offset, part.count);
    if (!type.base) continue;
    Cursor r{value, 16};
    const auto length = r.take(4), address = r.take(8);
    const auto index = static_cast<std::uint32_t>(r.take(4));
    if (address == 0) {
      require(length == 0, "a text is nowhere");
      continue;
    }
    const auto& objects = heap(address);
    const auto object = objects.find(index);
    std::uint64_t expected = 0;
    require(object != objects.end() && !__builtin_mul_overflow(length, type.base->size, &expected) &&
                object->second.second == expected,
            "a text and its heap disagree");
    if (!type.base->base && type.base->parts.empty()) continue;
    const auto [at, bytes] = object->second;  // the map may grow
    heap_bytes_ += bytes;
    require(heap_bytes_ <= size_ + kFreeBytes, "heaps of texts overlap");
    const auto inner = load(at, bytes, "a heap of texts");
    check_values(*type.base, inner.data(), length);
  }
}

// -------------------------------------------------------------------------------------------- members of groups,
// chunks

void Structure::check_group(std::uint64_t tree, std::uint64_t heap) {
  const auto head = load(heap, 32, "a heap of names");
  require(std::memcmp(head.data(), "HEAP\0", 5) == 0, "a heap of names is damaged");
  Cursor c{head.data() + 8, 24};
  const auto bytes = c.take(8);
  auto free = c.take(8);
  const auto data = c.take(8);
  require(bytes < 0x80000000U, "a heap of names is damaged");
  const auto names = load(data, bytes, "a heap of names");
  // Free blocks: next, size. The end of the list is 1.
  std::set<std::uint64_t> seen;
  while (free != 1) {
    require(free % 8 == 0 && free <= bytes && bytes - free >= 16 && seen.insert(free).second,
            "a heap of names is damaged");
    std::uint64_t next = 0, n = 0;
    std::memcpy(&next, names.data() + free, 8);
    std::memcpy(&n, names.data() + free + 8, 8);
    require(n >= 16 && n <= bytes - free, "a heap of names is damaged");
    free = next;
  }
  check_group_node(tree, -1, names);
}

/// Version 1 tree of a group; level -1: the top, whose level is anything.
void Structure::check_group_node(std::uint64_t address, int level, const std::vector<std::uint8_t>& names) {
  require(level < 0 || nodes_.insert(address).second, "the members of a group go in circles");
  const auto head = load(address, 24, "the list of members");
  const unsigned here = head[5];
  Cursor h{head.data() + 6, 18};
  const auto used = h.take(2);
  require(std::memcmp(head.data(), "TREE\0", 5) == 0 && used <= 2 * group_node_k_ && here < 16 &&
              (level < 0 || static_cast<int>(here) == level),
          "the list of members is damaged");
  const auto known_name = [&](std::uint64_t offset) {
    require(offset < names.size() && std::memchr(names.data() + offset, 0, names.size() - offset) != nullptr,
            "the name of a member is damaged");
  };
  const auto body = load(address + 24, used * 16 + 8, "the list of members");
  Cursor c{body.data(), body.size()};
  if (used > 0) known_name(c.take(8));
  for (std::uint64_t k = 0; k < used; ++k) {
    const auto child = c.take(8);
    known_name(c.take(8));
    if (here > 0) {
      check_group_node(child, static_cast<int>(here) - 1, names);
      continue;
    }
    const auto leaf = load(child, 8, "the list of members");
    Cursor l{leaf.data() + 6, 2};
    const auto n = l.take(2);
    require(std::memcmp(leaf.data(), "SNOD\x01", 5) == 0 && n <= 2 * group_leaf_k_, "the list of members is damaged");
    const auto entries = load(child + 8, n * 40, "the list of members");
    Cursor e{entries.data(), entries.size()};
    for (std::uint64_t i = 0; i < n; ++i) {
      known_name(e.take(8));
      e.skip(8);  // the object, checked when it is opened
      const auto cached = e.take(4);
      e.skip(4);
      require(cached <= 2, "the list of members is damaged");
      Cursor scratch = e.part(16);
      if (cached == 2) known_name(scratch.take(4));
    }
  }
}

void Structure::check_chunk_node(std::uint64_t address, int level, Object& o) {
  require(nodes_.insert(address).second, "the list of chunks goes in circles");
  const auto& chunk = o.layout->chunk;
  const std::size_t rank = chunk.size() - 1, key = 8 + 8 * chunk.size();
  const auto head = load(address, 24, "the list of chunks");
  const unsigned here = head[5];
  Cursor h{head.data() + 6, 2};
  const auto used = h.take(2);
  require(std::memcmp(head.data(), "TREE\x01", 5) == 0 && used <= 2 * chunk_node_k_ && here < 16 &&
              (level < 0 || static_cast<int>(here) == level),
          "the list of chunks is damaged");
  const auto body = load(address + 24, used * (key + 8) + key, "the list of chunks");
  Cursor c{body.data(), body.size()};
  std::uint64_t plain = 1;
  for (const auto n : chunk) plain *= n;
  for (std::uint64_t k = 0; k < used; ++k) {
    const auto bytes = c.take(4);
    StoredChunk stored;
    stored.bytes = static_cast<std::uint32_t>(bytes);
    stored.skipped = static_cast<std::uint32_t>(c.take(4));
    for (std::size_t d = 0; d < rank; ++d) {
      const auto at = c.take(8);
      require(at % chunk[d] == 0, "a chunk is out of place");
      (d == 0 ? stored.row : stored.col) = at;
    }
    require(c.take(8) == 0, "a chunk is out of place");
    const auto child = c.take(8);
    if (here > 0) {
      check_chunk_node(child, static_cast<int>(here) - 1, o);
    } else {
      require(child < size_ && bytes <= size_ - child && (o.filtered || bytes == plain), "a chunk is outside the file");
      stored.address = child;
      if (rank <= 2) o.chunks.push_back(stored);
    }
  }
}

/// What one message alone does not tell.
void Structure::finish(Object& o) {
  if (!o.layout) return;
  const Layout& l = *o.layout;
  require(o.type && o.space, "a dataset lacks its type or its shape");
  require(!o.fill_bytes || *o.fill_bytes == 0 || *o.fill_bytes == o.type->size, "a fill value has the wrong size");
  for (const auto& fill : o.fills) {
    require(fill.size() == o.type->size, "a fill value has the wrong size");
    check_values(*o.type, fill.data(), 1);
  }
  std::uint64_t bytes = 0;
  require(!__builtin_mul_overflow(o.space->count, o.type->size, &bytes), "a dataset is too large");
  if (l.cls == 0) require(l.bytes == bytes || bytes == 0, "a dataset has the wrong size");
  if (l.cls == 1 && l.address != kUndefined) {
    require(l.bytes == kUndefined || l.bytes >= bytes, "a dataset has the wrong size");
    const auto stored = l.bytes == kUndefined ? bytes : l.bytes;
    require(l.address <= size_ && stored <= size_ - l.address, "a dataset is outside the file");
  }
  if (l.cls == 2 && l.tree) {
    require(l.chunk.size() == o.space->dims.size() + 1 && l.chunk.back() == o.type->size,
            "chunks have the wrong shape");
    std::uint64_t plain = 1;
    for (const auto n : l.chunk)
      require(n > 0 && !__builtin_mul_overflow(plain, n, &plain) && plain < (std::uint64_t{1} << 32),
              "chunks have an impossible size");
    if (l.address != kUndefined) check_chunk_node(l.address, -1, o);
  }
  if (l.index != 0) {
    require(l.chunk.size() == o.space->dims.size() + 1 && l.chunk.back() == o.type->size,
            "chunks have the wrong shape");
    std::uint64_t plain = 1, chunks = 1;
    for (std::size_t k = 0; k < l.chunk.size(); ++k) {
      require(l.chunk[k] > 0 && !__builtin_mul_overflow(plain, l.chunk[k], &plain) && plain < (std::uint64_t{1} << 32),
              "chunks have an impossible size");
      // The library numbers them in the largest shape that the dataset may grow to.
      if (k < o.space->most.size() && (l.index == 2 || l.index == 3))
        require(!__builtin_mul_overflow(
                    chunks, o.space->most[k] / l.chunk[k] + (o.space->most[k] % l.chunk[k] != 0 ? 1 : 0), &chunks),
                "chunks have an impossible size");
    }
    if (l.address != kUndefined)
      check_chunk_index(l.index, l.address, l.index == 1 && o.filtered ? l.bytes : plain, chunks, o.filtered,
                        o.space->dims.size());
  }
}

}  // namespace scw::io::h5
