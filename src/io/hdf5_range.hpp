// Rows of a dataset, read by any thread at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/hdf5.hpp"
#include "io/hdf5_filters.hpp"
#include "io/spares.hpp"

namespace scw::io::h5 {

/// Where the elements of a dataset are, listed once: after that, contiguous data and chunks whose filters we know are
/// read without the library and without any lock of ours. A dataset of no dimension counts as one row, one of several
/// as rows x everything else.
class SCW_API RangeReader {
 public:
  /// The Source of the dataset must outlive this. Throws NotSupported for a filter that nobody here can undo.
  explicit RangeReader(Dataset d);
  /// Only while `d` is there and the caller holds the library; elements are of `element_bytes` in the file.
  RangeReader(const Dataset& d, std::size_t element_bytes);
  ~RangeReader();
  RangeReader(const RangeReader&) = delete;
  RangeReader& operator=(const RangeReader&) = delete;

  std::int64_t n_rows() const { return rows_; }
  std::int64_t n_cols() const { return cols_; }
  const Type& type() const { return dataset().type; }
  /// Whether reading has to take the library (a Session), because of the dataset's layout, filters or byte order.
  bool needs_library() const { return !own_ || !dataset().type.native; }
  /// Rows that are stored together: a range that begins and ends at a multiple of this unpacks no chunk twice.
  std::int64_t chunk_rows() const { return way_ == Way::chunked ? chunk_rows_ : 1; }

  /// Rows [first, first + n) as T; see read_numbers for what is converted and what false means. `out` gets
  /// n * n_cols() elements. ctx.n_threads threads unpack, unless others use them; may be called by several threads at
  /// once. Throws FormatError (damaged chunks), IoError (the file was cut short).
  template <class T>
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, T* out) const;

  /// Calls body for blocks that cover rows [first, first + n), from several threads at once; see read_blocks.
  void blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type, std::size_t element_bytes,
              const std::function<void(const Block&)>& body) const;

 private:
  enum class Way : std::uint8_t { library, contiguous, chunked };
  struct Chunk {
    std::int64_t number = 0;  ///< along rows of chunks
    std::uint64_t address = 0;
    std::uint32_t bytes = 0, skipped = 0;
  };

  const Dataset& dataset() const { return *d_; }
  void plan_chunks();
  void list_chunks();
  /// Blocks as stored; those that fill whole rows of `direct`, if there is one, go straight there.
  void stored_blocks(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct,
                     const std::function<void(const Block&)>& body) const;
  void contiguous_blocks(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct,
                         const std::function<void(const Block&)>& body) const;
  void library_blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type,
                      std::size_t element_bytes, const std::function<void(const Block&)>& body) const;
  /// The same for chunks of any number of dimensions, unpacked by us and converted by the library.
  void chunk_blocks(const Context& ctx, std::int64_t first, std::int64_t n, hid_t memory_type,
                    std::size_t element_bytes, const std::vector<Filter>& filters,
                    const std::function<void(const Block&)>& body) const;
  void scatter(const std::vector<hsize_t>& at, const std::vector<std::int64_t>& edge, std::int64_t low,
               std::int64_t high, const std::byte* chunk, std::byte* rows) const;
  /// The chunk at an offset as it is stored, if it is.
  unsigned load(const hsize_t* offset, std::vector<std::byte>& packed) const;
  void set_fill();
  /// One chunk -> out, chunk_bytes_ bytes.
  void unpack(std::int64_t number, Unpacker& u, std::byte* out) const;
  const Chunk* find(std::int64_t number) const;

  const Dataset* d_;
  std::unique_ptr<Dataset> keep_;
  Way way_ = Way::library;
  bool own_ = false;  ///< nothing needs the library
  bool listed_ = false;
  std::size_t element_bytes_;
  std::int64_t rows_ = 0, cols_ = 0, row_bytes_ = 0;
  std::uint64_t address_ = 0;
  std::int64_t chunk_rows_ = 1, chunk_cols_ = 1, across_ = 1, chunk_bytes_ = 0;
  std::int64_t expansion_ = 1;
  std::vector<Filter> filters_;
  std::vector<std::byte> fill_;
  std::vector<Chunk> chunks_;
  mutable std::mutex library_;  ///< workers take turns in the library
  mutable Spares<Unpacker> unpackers_;
};

extern template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::uint8_t*) const;
extern template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::int32_t*) const;
extern template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, std::int64_t*) const;
extern template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, float*) const;
extern template SCW_API bool RangeReader::read(const Context&, std::int64_t, std::int64_t, double*) const;

}  // namespace scw::io::h5
