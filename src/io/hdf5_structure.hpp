// A check of an HDF5 file's structure before the library sees it.
//
// The library (1.10) trusts what it reads: lengths inside header messages, tree nodes that point back at themselves,
// texts shorter than the heap says. A damaged file makes it overrun buffers or run for ever. Objects are checked here
// first, one at a time when they are about to be opened: everything the library will decode must lie inside the file
// and fit together. Format: "HDF5 File Format Specification Version 3.0", The HDF Group. Checksums of newer versions
// are left to the library; they keep out damage, but not those who mean harm, so what they protect is checked as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace scw::io::h5 {

/// Where a field of an array of records is in the stored record.
struct StoredField {
  std::string name;
  std::size_t offset = 0;
  bool is_text = false;  ///< of variable length: a reference of 16 bytes
};

/// A chunk of a dataset as the file lists it: inside the file, but not more is known of its content.
struct StoredChunk {
  std::uint64_t address = 0;
  std::uint32_t bytes = 0;
  std::uint32_t skipped = 0;       ///< filters that were not applied, one bit each
  std::uint64_t row = 0, col = 0;  ///< of its first element; col 0 for one dimension
};

class Structure {
 public:
  /// Copies n bytes at an address of the file; false if they are not all there.
  using ReadAt = std::function<bool(std::uint64_t address, std::size_t n, void* out)>;
  /// What is wrong, thrown by all functions; the caller knows file and object.
  struct Damage {
    std::string what;
  };

  Structure(ReadAt read, std::uint64_t size) : read_(std::move(read)), size_(size) {}
  /// Reads the superblock, at address 0, and checks the root group.
  void open();
  /// Checks the object whose header is at `address`, with its attributes and, for groups, the list of members, for
  /// datasets, the list of chunks.
  void check_object(std::uint64_t address);
  /// The record of a dataset of records that was checked; empty for others.
  std::vector<StoredField> record(std::uint64_t address, std::size_t& record_bytes) const;
  /// The chunks of a dataset of one or two dimensions that was checked, if they are listed in a version 1 tree.
  const std::vector<StoredChunk>* chunks(std::uint64_t address) const;

 private:
  struct Cursor;
  struct Type;
  struct Space;
  struct Object;
  struct Layout;
  struct Chunk;
  struct Heap;
  struct Index;

  std::vector<std::uint8_t> load(std::uint64_t address, std::uint64_t n, const char* what) const;
  void check_messages(std::vector<std::uint8_t> bytes, int version, bool with_order, std::vector<Chunk>& more,
                      Object& o);
  void check_message(unsigned type, unsigned flags, Cursor c, std::vector<Chunk>& more, Object& o);
  Type check_type(Cursor& c, int depth) const;
  Space check_space(Cursor& c) const;
  void check_attribute(Cursor c);
  void check_filters(Cursor c, Object& o) const;
  void check_link(Cursor c) const;
  void check_layout(Cursor c, Object& o);
  /// Where an object of a global heap is, and its bytes.
  using HeapObjects = std::unordered_map<std::uint32_t, std::pair<std::uint64_t, std::uint64_t>>;
  void check_values(const Type& type, const std::uint8_t* data, std::uint64_t count);
  const HeapObjects& heap(std::uint64_t address);
  void check_dense(std::uint64_t heap, std::uint64_t by_name, std::uint64_t by_order, bool attributes);
  void load_heap_blocks(std::uint64_t address, std::uint64_t offset, unsigned rows, Heap& h);
  void load_heap_block(std::uint64_t address, std::uint64_t offset, std::uint64_t n, Heap& h);
  void check_index(std::uint64_t address, const Heap* heap, unsigned type, std::size_t record_bytes);
  std::uint64_t check_index_node(std::uint64_t address, std::uint64_t n, unsigned level, const Index& index,
                                 const Heap* heap);
  void check_chunk_index(unsigned way, std::uint64_t address, std::uint64_t bytes, std::uint64_t chunks, bool filtered,
                         std::size_t rank);
  void check_fixed_array(std::uint64_t address, std::uint64_t chunks, bool filtered);
  void check_extensible_array(std::uint64_t address, bool filtered);
  void check_group(std::uint64_t tree, std::uint64_t heap);
  void check_group_node(std::uint64_t address, int level, const std::vector<std::uint8_t>& names);
  void check_chunk_node(std::uint64_t address, int level, Object& o);
  void finish(Object& o);

  ReadAt read_;
  std::uint64_t size_ = 0;
  unsigned group_leaf_k_ = 4, group_node_k_ = 16, chunk_node_k_ = 32;
  std::set<std::uint64_t> checked_, nodes_;
  std::unordered_map<std::uint64_t, HeapObjects> heaps_;
  std::uint64_t heap_bytes_ = 0;
  struct Record {
    std::size_t bytes = 0;
    std::vector<StoredField> fields;
  };
  std::unordered_map<std::uint64_t, Record> records_;
  std::unordered_map<std::uint64_t, std::vector<StoredChunk>> chunks_;
};

}  // namespace scw::io::h5
