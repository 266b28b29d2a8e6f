// Device copies of arrays that scwarp has handed out on the host, found again by their content.
//
// Results of operations on host data go to host slots (obsm, obsp). The next operation wants them on the device again,
// where they came from: so the device side is kept, with a 64-bit digest of all bytes. An argument of the same size and
// digest is that array, wherever it has been stored, copied or wrapped since, and an array that was changed in place
// has another digest: nothing has to be invalidated. Hashing runs at memory speed; a copy over the bus does not.
//
// Entries are weak: those of one call are dropped once none of its host arrays exists any more. They count as device
// memory (tag of their operation), never exceed an eighth of the device, and are given up before a request is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "scwarp/core/context.hpp"

namespace scw::python {

class DeviceCache {
 public:
  static DeviceCache& instance();

  /// While the result lives, so do entries that were added with it.
  class Group;
  static std::shared_ptr<Group> make_group();

  /// `device` holds the same bytes as `host`, complete; `owner` keeps it.
  void add(const Context& ctx, const Group& group, const void* host, std::size_t bytes, const void* device,
           std::shared_ptr<void> owner);

  struct Hit {
    const void* device = nullptr;  // null: not there
    std::shared_ptr<void> owner;
  };
  Hit find(const Context& ctx, const void* host, std::size_t bytes);

  void clear();

  struct Numbers {
    std::size_t bytes = 0;     ///< held now
    std::int64_t entries = 0;  ///< held now
    std::int64_t hits = 0;     ///< since the start
    std::int64_t uploads = 0;  ///< arguments that were copied to a device, since the start
    std::size_t uploaded_bytes = 0;
  };
  Numbers numbers();
  void count_upload(std::size_t bytes);

 private:
  struct Entry {
    std::uint64_t group, digest;
    std::size_t bytes;
    Device where;
    const void* device;
    std::shared_ptr<void> owner;
  };
  void drop(std::uint64_t group) noexcept;

  std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first
  Numbers numbers_;
};

class DeviceCache::Group {
 public:
  explicit Group(std::uint64_t id) : id_(id) {}
  ~Group() { DeviceCache::instance().drop(id_); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

 private:
  friend class DeviceCache;
  std::uint64_t id_;
};

}  // namespace scw::python
