// Check of the storage that HDF5's newer groups use for many members or attributes: the messages are objects of a
// fractal heap, and version 2 trees say which. Format specification, III.A.2 and III.G.
//
// The library follows what these say once their checksums are right, into memory that is not there. Only what it writes
// itself for groups and attributes passes: heaps without filters, and objects inside the heap's blocks.
#include <algorithm>
#include <bit>
#include <iterator>
#include <map>

#include "io/hdf5_cursor.hpp"

namespace scw::io::h5 {
namespace {

constexpr unsigned kMaxRows = 48;

/// Bytes that hold a number up to n.
std::size_t width_of(std::uint64_t n) {
  return static_cast<std::size_t>(std::bit_width(std::max<std::uint64_t>(n, 1)) - 1) / 8 + 1;
}

}  // namespace

/// How a version 2 tree is laid out; the vectors by level, leaves first.
struct Structure::Index {
  std::uint8_t type = 0;
  std::uint64_t node_bytes = 0;
  std::size_t record_bytes = 0, id_at = 0;
  std::size_t count_width = 0;
  std::vector<std::uint64_t> room;
  std::vector<std::size_t> total_width;
};

/// The blocks of a fractal heap by their offset in the heap's space.
struct Structure::Heap {
  struct Block {
    std::uint64_t address = 0, bytes = 0;
  };
  std::uint64_t address = 0;
  std::uint64_t width = 0, first_bytes = 0, largest_bytes = 0;
  std::size_t offset_width = 0, length_width = 0, block_head = 0;
  unsigned direct_rows = 0;
  std::map<std::uint64_t, Block> blocks;

  std::uint64_t row_bytes(unsigned row) const { return row == 0 ? first_bytes : first_bytes << (row - 1); }
};

/// The direct blocks below an indirect block that begins at `offset` of the heap's space.
void Structure::load_heap_blocks(std::uint64_t address, std::uint64_t offset, unsigned rows, Heap& h) {
  require(rows > 0 && rows <= kMaxRows && nodes_.insert(address).second, "a heap of names goes in circles");
  const std::uint64_t direct = std::min(rows, h.direct_rows) * h.width;
  const std::uint64_t indirect = rows > h.direct_rows ? (rows - h.direct_rows) * h.width : 0;
  const auto bytes = load(address, 13 + h.offset_width + 8 * (direct + indirect) + 4, "a heap of names");
  Cursor c{bytes.data(), bytes.size()};
  require(std::memcmp(c.p, "FHIB\0", 5) == 0, "a heap of names is damaged");
  c.skip(5);
  require(c.take(8) == h.address && c.take(h.offset_width) == offset, "a heap of names is damaged");
  for (std::uint64_t k = 0; k < direct + indirect; ++k) {
    const auto row = static_cast<unsigned>(k / h.width);
    const std::uint64_t n = h.row_bytes(row), child = c.take(8);
    if (child != kUndefined) {
      if (k < direct)
        load_heap_block(child, offset, n, h);
      else
        load_heap_blocks(child, offset, static_cast<unsigned>(std::bit_width(n / (h.first_bytes * h.width))), h);
    }
    require(!__builtin_add_overflow(offset, n, &offset), "a heap of names is too large");
  }
}

void Structure::load_heap_block(std::uint64_t address, std::uint64_t offset, std::uint64_t n, Heap& h) {
  const auto head = load(address, h.block_head, "a heap of names");
  Cursor c{head.data(), head.size()};
  require(std::memcmp(c.p, "FHDB\0", 5) == 0 && address <= size_ && n <= size_ - address && n >= h.block_head,
          "a heap of names is damaged");
  c.skip(5);
  require(c.take(8) == h.address && c.take(h.offset_width) == offset, "a heap of names is damaged");
  h.blocks[offset] = {address, n};
}

/// Checks every message in a heap that the trees know.
void Structure::check_dense(std::uint64_t heap, std::uint64_t by_name, std::uint64_t by_order, bool attributes) {
  if (!nodes_.insert(heap).second) return;
  const auto bytes = load(heap, 146, "a heap of names");
  Cursor c{bytes.data(), bytes.size()};
  require(std::memcmp(c.p, "FRHP\0", 5) == 0, "a heap of names is damaged");
  c.skip(5);
  const auto id_bytes = c.take(2);
  require(id_bytes == (attributes ? 8U : 7U), "a heap of names has ids of an unknown length");
  require(c.take(2) == 0, "a heap of names is compressed");
  const auto flags = c.take(1);
  const auto largest_object = c.take(4);
  c.skip(8 + 8);  // objects outside the blocks: refused below
  c.skip(10 * 8);
  Heap h;
  h.address = heap;
  h.width = c.take(2);
  h.first_bytes = c.take(8);
  h.largest_bytes = c.take(8);
  const auto space_bits = c.take(2);
  c.skip(2);
  const auto root = c.take(8);
  const auto rows = static_cast<unsigned>(c.take(2));
  require(std::has_single_bit(h.width) && h.width <= 1024 && std::has_single_bit(h.first_bytes) &&
              std::has_single_bit(h.largest_bytes) && h.first_bytes >= 64 && h.first_bytes <= h.largest_bytes &&
              h.largest_bytes <= (1U << 24) && space_bits > 0 && space_bits <= 56 &&
              largest_object <= h.largest_bytes && largest_object > 0,
          "a heap of names has an impossible shape");
  h.offset_width = (static_cast<std::size_t>(space_bits) + 7) / 8;
  h.length_width = std::min(width_of(h.largest_bytes), width_of(largest_object));
  h.block_head = 13 + h.offset_width + ((flags & 2U) != 0 ? 4 : 0);
  h.direct_rows = static_cast<unsigned>(std::bit_width(h.largest_bytes / h.first_bytes)) + 1;
  require(1 + h.offset_width + h.length_width <= id_bytes, "a heap of names has ids of an unknown length");
  if (root != kUndefined) {
    if (rows == 0)
      load_heap_block(root, 0, h.first_bytes, h);
    else
      load_heap_blocks(root, 0, rows, h);
  }
  check_index(by_name, &h, attributes ? 8 : 5, attributes ? 17 : 11);
  if (by_order != kUndefined) check_index(by_order, &h, attributes ? 9 : 6, attributes ? 13 : 15);
}

/// A version 2 tree; its records name objects of the heap, if there is one.
void Structure::check_index(std::uint64_t address, const Heap* heap, unsigned type, std::size_t record_bytes) {
  const auto bytes = load(address, 38, "an index of names");
  Cursor c{bytes.data(), bytes.size()};
  require(std::memcmp(c.p, "BTHD\0", 5) == 0 && c.p[5] == type, "an index of names is damaged");
  c.skip(6);
  Index index;
  index.type = static_cast<std::uint8_t>(type);
  index.node_bytes = c.take(4);
  index.record_bytes = static_cast<std::size_t>(c.take(2));
  const auto depth = static_cast<unsigned>(c.take(2));
  c.skip(2);
  const auto root = c.take(8), n = c.take(2), total = c.take(8);
  const std::uint64_t expected = record_bytes;
  require(index.record_bytes == record_bytes && index.node_bytes >= 64 && index.node_bytes <= (1U << 20) && depth <= 8,
          "an index of names has an impossible shape");
  index.id_at = type == 5 ? 4 : type == 6 ? 8 : 0;
  // How many records a node has room for, and how wide their numbers are, from the leaves up.
  constexpr std::uint64_t kFrame = 10;
  std::uint64_t room = (index.node_bytes - kFrame) / expected, below = room;
  index.room.push_back(room);
  index.count_width = width_of(room);
  index.total_width.push_back(0);
  for (unsigned level = 1; level <= depth; ++level) {
    const std::uint64_t pointer = 8 + index.count_width + index.total_width.back();
    require(index.node_bytes >= kFrame + pointer + expected + pointer, "an index of names has an impossible shape");
    room = (index.node_bytes - kFrame - pointer) / (expected + pointer);
    require(!__builtin_mul_overflow(room + 1, below, &below) && !__builtin_add_overflow(below, room, &below),
            "an index of names has an impossible shape");
    index.room.push_back(room);
    index.total_width.push_back(width_of(below));
  }
  if (root == kUndefined) {
    require(n == 0 && total == 0, "an index of names is damaged");
    return;
  }
  require(check_index_node(root, n, depth, index, heap) == total, "an index of names is damaged");
}

/// Number of records in the node and below.
std::uint64_t Structure::check_index_node(std::uint64_t address, std::uint64_t n, unsigned level, const Index& index,
                                          const Heap* heap) {
  require(nodes_.insert(address).second && n <= index.room[level], "an index of names goes in circles");
  const auto bytes = load(address, index.node_bytes, "an index of names");
  Cursor c{bytes.data(), bytes.size()};
  require(std::memcmp(c.p, level > 0 ? "BTIN\0" : "BTLF\0", 5) == 0 && c.p[5] == index.type,
          "an index of names is damaged");
  c.skip(6);
  const bool attributes = index.type == 8 || index.type == 9;
  for (std::uint64_t k = 0; k < n; ++k) {
    Cursor record = c.part(index.record_bytes);
    if (heap == nullptr) continue;
    require(!attributes || (record.p[8] & 2U) == 0, "it shares parts of its header with other objects");
    record.skip(index.id_at);
    require(record.take(1) == 0, "a name is not inside its heap");
    const auto offset = record.take(heap->offset_width), length = record.take(heap->length_width);
    const auto after = heap->blocks.upper_bound(offset);
    require(after != heap->blocks.begin() && length > 0, "a name is not inside its heap");
    const auto& [first, block] = *std::prev(after);
    require(
        offset - first >= heap->block_head && offset - first <= block.bytes && length <= block.bytes - (offset - first),
        "a name is not inside its heap");
    const auto message = load(block.address + (offset - first), length, "a name");
    const Cursor m{message.data(), message.size()};
    if (attributes)
      check_attribute(m);
    else
      check_link(m);
  }
  std::uint64_t total = n;
  for (std::uint64_t k = 0; level > 0 && k <= n; ++k) {
    const auto child = c.take(8), count = c.take(index.count_width);
    const auto declared = level > 1 ? c.take(index.total_width[level - 1]) : count;
    require(check_index_node(child, count, level - 1, index, heap) == declared, "an index of names is damaged");
    total += declared;
  }
  return total;
}

// ------------------------------------------------------------------------------------------------- lists of chunks

/// The newer ways of listing chunks: what the library walks through must be there; what the entries say is checked when
/// chunks are read.
void Structure::check_chunk_index(unsigned way, std::uint64_t address, std::uint64_t bytes, std::uint64_t chunks,
                                  bool filtered, std::size_t rank) {
  require(address < size_, "the list of chunks is outside the file");
  switch (way) {
    case 2:  // all chunks one after another
      require(!filtered && !__builtin_mul_overflow(bytes, chunks, &bytes), "the list of chunks is damaged");
      [[fallthrough]];
    case 1:  // one chunk
      require(bytes <= size_ - address, "a chunk is outside the file");
      break;
    case 3:
      check_fixed_array(address, chunks, filtered);
      break;
    case 4:
      check_extensible_array(address, filtered);
      break;
    default: {
      const auto head = load(address, 38, "the list of chunks");
      const std::size_t record = head[10] + std::size_t{head[11]} * 256, least = 8 + 8 * rank;
      require(filtered ? record >= least + 5 && record <= least + 12 : record == least,
              "the list of chunks is damaged");
      check_index(address, nullptr, filtered ? 11 : 10, record);
    }
  }
}

namespace {

/// An entry of an array: an address, and, with filters, the stored size in 1 to 8 bytes and a mask of 4.
bool is_entry(std::uint64_t bytes, bool filtered) { return filtered ? bytes >= 13 && bytes <= 20 : bytes == 8; }

}  // namespace

void Structure::check_fixed_array(std::uint64_t address, std::uint64_t chunks, bool filtered) {
  const auto bytes = load(address, 28, "the list of chunks");
  Cursor c{bytes.data(), bytes.size()};
  require(std::memcmp(c.p, "FAHD\0", 5) == 0 && c.p[5] == (filtered ? 1 : 0), "the list of chunks is damaged");
  c.skip(6);
  const auto entry = c.take(1), page_bits = c.take(1), n = c.take(8), block = c.take(8);
  require(is_entry(entry, filtered) && page_bits >= 1 && page_bits <= 16 && n == chunks && n <= size_,
          "the list of chunks is damaged");
  if (block == kUndefined) return;
  const std::uint64_t page = std::uint64_t{1} << page_bits, pages = n > page ? (n + page - 1) / page : 0;
  const auto all = load(block, 14 + (pages + 7) / 8 + n * entry + 4 + 4 * pages, "the list of chunks");
  Cursor b{all.data(), all.size()};
  require(std::memcmp(b.p, "FADB\0", 5) == 0 && b.p[5] == (filtered ? 1 : 0), "the list of chunks is damaged");
  b.skip(6);
  require(b.take(8) == address, "the list of chunks is damaged");
}

void Structure::check_extensible_array(std::uint64_t address, bool filtered) {
  const auto bytes = load(address, 72, "the list of chunks");
  Cursor c{bytes.data(), bytes.size()};
  const std::uint8_t client = filtered ? 1 : 0;
  require(std::memcmp(c.p, "EAHD\0", 5) == 0 && c.p[5] == client, "the list of chunks is damaged");
  c.skip(6);
  const auto entry = c.take(1), bits = c.take(1), in_index = c.take(1), least = c.take(1), pointers = c.take(1),
             page_bits = c.take(1);
  c.skip(48);
  const auto index = c.take(8);
  // As the library makes them, always.
  require(is_entry(entry, filtered) && bits == 32 && in_index == 4 && least == 16 && pointers == 4 && page_bits == 10,
          "the list of chunks has an unknown shape");
  if (index == kUndefined) return;
  const auto open = [&](std::uint64_t at, std::uint64_t n, const char* mark) {
    auto block = load(at, n, "the list of chunks");
    Cursor b{block.data(), block.size()};
    require(nodes_.insert(at).second && std::memcmp(b.p, mark, 4) == 0 && b.p[4] == 0 && b.p[5] == client,
            "the list of chunks is damaged");
    b.skip(6);
    require(b.take(8) == address, "the list of chunks is damaged");
    return block;
  };
  // Super block k has 2^(k/2) data blocks of 16 * 2^((k+1)/2) entries; those of the first four hang on the index.
  constexpr unsigned kSuperBlocks = 29, kInIndex = 4, kBlocksInIndex = 6;
  constexpr std::uint64_t kPage = 1024;
  const auto data_block = [&](std::uint64_t at, std::uint64_t n) {
    const std::uint64_t pages = n > kPage ? n / kPage : 0;
    if (at != kUndefined) open(at, 18 + n * entry + 4 + 4 * pages, "EADB");
  };
  const auto entries_of = [](unsigned k) { return std::uint64_t{16} << ((k + 1) / 2); };
  const auto top = open(index, 14 + in_index * entry + 8 * (kBlocksInIndex + kSuperBlocks - kInIndex) + 4, "EAIB");
  Cursor t{top.data(), top.size()};
  t.skip(14 + in_index * entry);
  for (unsigned k = 0; k < kInIndex; ++k)
    for (unsigned j = 0; j < 1U << (k / 2); ++j) data_block(t.take(8), entries_of(k));
  for (unsigned k = kInIndex; k < kSuperBlocks; ++k) {
    const auto at = t.take(8);
    if (at == kUndefined) continue;
    const std::uint64_t blocks = std::uint64_t{1} << (k / 2), n = entries_of(k);
    const std::uint64_t marks = n > kPage ? blocks * ((n / kPage + 7) / 8) : 0;
    const auto super = open(at, 18 + marks + 8 * blocks + 4, "EASB");
    Cursor s{super.data(), super.size()};
    s.skip(18 + marks);
    for (std::uint64_t j = 0; j < blocks; ++j) data_block(s.take(8), n);
  }
}

}  // namespace scw::io::h5
