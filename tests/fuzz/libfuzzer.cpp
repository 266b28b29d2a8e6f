// One reader under libFuzzer: compiled once per format, with SCWARP_FUZZ_FORMAT as its name.
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "formats.hpp"
#include "mutate.hpp"
#include "store.hpp"

/// The HDF5 library asks for what a damaged file declares and copes with a refusal; the sanitizer must not stop it.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1:detect_leaks=0";
}

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t capacity);

namespace {

const scw::fuzz::Format& target() {
  static const auto& format = scw::fuzz::format(SCWARP_FUZZ_FORMAT);
  return format;
}

scw::fuzz::Bytes bytes(const std::uint8_t* data, std::size_t size) {
  return scw::fuzz::to_bytes({reinterpret_cast<const char*>(data), size});
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                                                             std::size_t size) {
  scw::fuzz::attempt(target(), bytes(data, size));
  return 0;
}

extern "C" __attribute__((visibility("default"))) std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                                                                      std::size_t size,
                                                                                      std::size_t capacity,
                                                                                      unsigned seed) {
  using namespace scw::fuzz;
  if (size == 0 || target().shape == Shape::text) return LLVMFuzzerMutate(data, size, capacity);
  Dice dice(seed, 0);
  if (target().shape == Shape::store) {
    const auto change = [](Bytes& content, std::size_t room) {
      const std::size_t n = content.size();
      content.resize(room);
      content.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(content.data()), n, room));
    };
    const Bytes after = mutate_store(bytes(data, size), capacity, change, dice);
    std::copy_n(reinterpret_cast<const std::uint8_t*>(after.data()), after.size(), data);
    return after.size();
  }
  const Bytes before = bytes(data, size);
  // The library's own changes half of the time: they know what comparisons looked for. Its insertions and deletions
  // move everything behind them, which no offset of an HDF5 file survives: they are kept to a small piece.
  Bytes after = before;
  if (dice.below(2) == 0) {
    mutate(after, landmarks(before), dice);
  } else {
    const std::size_t at = dice.below(size), n = std::min<std::size_t>(1 + dice.below(64), size - at);
    std::uint8_t piece[128];
    std::memcpy(piece, data + at, n);
    const std::size_t changed = std::min(LLVMFuzzerMutate(piece, n, n), n);
    std::memcpy(after.data() + at, piece, changed);
  }
  if (dice.below(4) > 0) {
    const Checksums sums(before);
    sums.repair(after);
  }
  const std::size_t n = std::min(after.size(), capacity);
  std::memcpy(data, after.data(), n);
  return n;
}
