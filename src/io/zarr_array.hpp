// An array of a Zarr store: where its chunks are, and what is in them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/spares.hpp"
#include "io/zarr_codecs.hpp"
#include "io/zarr_store.hpp"

namespace scw::io::zarr {

inline std::string join(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

/// Bytes of the files in a folder and `depth` folders below it; counting stops once there are `enough`.
std::int64_t bytes_below(const Tree& tree, const std::string& folder, int depth, std::int64_t enough = INT64_MAX);
/// The bytes of every `unit` in reverse: from the other byte order.
void reverse_units(std::byte* p, std::size_t bytes, std::size_t unit);
float half_to_float(std::uint16_t h);
std::uint32_t load32(const std::byte* p);
/// A text of fixed length, padded with zeros.
std::string fixed_text(const Type& t, const std::byte* p);

/// A chunk, or the part of it that is inside the array and the rows asked for.
struct Piece {
  std::vector<std::int64_t> at;      ///< number of the chunk along every dimension
  std::vector<std::int64_t> skip;    ///< elements of the chunk before the part, by dimension
  std::vector<std::int64_t> extent;  ///< of the part
  std::vector<std::int64_t> place;   ///< of the part in the result
};

class ZarrArray final : public StoredArray {
 public:
  ZarrArray(const ZarrStore& store, std::string path, std::string folder, ArrayMeta meta, bool null)
      : StoredArray(store, std::move(path)), zarr_(store), folder_(std::move(folder)), meta_(std::move(meta)) {
    type = meta_.type.element;
    dims = meta_.shape;
    is_null = null;
    count = 1;
    for (const auto n : dims) count *= n;
    if (null) count = 0;
    stamps_ = stamps();
    check_plausible();
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
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out,
            const std::vector<std::int32_t>& wanted) const override {
    return numbers(ctx, first, n, out, &wanted);
  }
  bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out,
            const std::vector<std::int32_t>& wanted) const override {
    return numbers(ctx, first, n, out, &wanted);
  }
  bool is_concurrent() const override { return true; }
  std::int64_t chunk_rows() const override;
  void will_read(std::int64_t first, std::int64_t n) const override;
  void release() const override { rooms_.clear(); }
  std::vector<std::string> texts(const Context& ctx) const override;
  std::optional<StructArray> records(const Context& ctx) const override;
  std::optional<OpaqueRows> opaque(const Context& ctx) const override;

 private:
  using Index = std::vector<std::uint64_t>;
  using Columns = std::vector<std::int32_t>;  // not negative: wanted
  /// What a thread needs to unpack chunks.
  struct Room {
    Unpacker unpacker;
    Buffer gathered;
  };
  /// Where a chunk is stored.
  struct Place {
    std::string key;
    std::int64_t offset = 0;
    std::int64_t bytes = -1;  ///< -1: the whole file
  };

  void check_plausible() const;
  template <class Body>
  void pieces(const Context& ctx, std::int64_t first, std::int64_t n, const Columns* wanted, Body&& body) const;
  static bool is_wanted(const Piece& piece, const Columns* wanted) {
    if (wanted == nullptr || piece.at.size() != 2) return true;
    const auto* const at = wanted->data() + piece.place[1];
    return std::any_of(at, at + piece.extent[1], [](std::int32_t j) { return j >= 0; });
  }
  std::int64_t count_pieces(std::int64_t first, std::int64_t n) const;
  /// The piece of number `task` of rows [first, first + n).
  void find_piece(std::int64_t task, std::int64_t first, std::int64_t n, Piece& piece) const;
  /// False if the chunk was never written (which a whole file shows only when it is read).
  bool find(const Piece& piece, Place& place) const;
  /// The stored bytes of a chunk; false if it was never written.
  bool load(const Piece& piece, Buffer& packed) const;
  /// The same for elements [from, from + n) of a chunk that is not compressed.
  bool load_part(const Piece& piece, std::int64_t from, std::int64_t n, std::byte* out) const;
  void expect(const Piece& piece) const;
  std::shared_ptr<const Index> shard_index(const std::string& key, std::int64_t inner) const;
  template <class T>
  bool numbers(const Context& ctx, std::int64_t first, std::int64_t n, T* out, const Columns* wanted = nullptr) const;
  /// Elements as they are in this machine, of fixed size.
  std::vector<std::byte> raw(const Context& ctx) const;
  /// put(from, to, n): n elements from an unpacked chunk to an offset (in elements) of the result. `direct`: bytes of a
  /// result of stored elements, where whole chunks may be unpacked at once.
  template <class Put>
  void elements(const Context& ctx, std::int64_t first, std::int64_t n, std::byte* direct, const Columns* wanted,
                Put&& put) const;
  /// run(from, to, n): runs of a piece that are contiguous in the result; source elements are `step` apart.
  template <class Run>
  void runs(const Piece& piece, Run&& run) const;
  std::string where(const Piece& piece) const { return fmt::format("({})", fmt::join(piece.at, ", ")); }
  /// A chunk that is not there holds the fill value, unless the store is being removed or replaced.
  void expect_never_written(const std::string& key) const {
    if (zarr_.tree().is_unchanged() && stamps() == stamps_) return;
    fail<IoError>("'{}' is not there: the store was removed, replaced or changed since it was opened", key);
  }
  std::pair<std::uint64_t, std::uint64_t> stamps() const {
    return {zarr_.tree().stamp(folder_), meta_.v3_keys ? zarr_.tree().stamp(join(folder_, "c")) : 0};
  }
  [[noreturn]] void fail_changed(const std::string& key) const {
    fail<IoError>("'{}' cannot be read: it was cut short or changed since it was opened", key);
  }

  const ZarrStore& zarr_;
  std::string folder_;
  ArrayMeta meta_;
  std::pair<std::uint64_t, std::uint64_t> stamps_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const Index>> indices_;
  mutable Spares<Room> rooms_;
};

}  // namespace scw::io::zarr
