// Damage to files: deterministic, and aimed at the structures of a format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "formats.hpp"
#include "math/philox.hpp"

namespace scw::fuzz {

/// Numbers of one mutant.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t mutant) : seed_(seed), mutant_(mutant) {}
  std::uint64_t next() { return math::random_u64(RngKey{seed_, 0}, mutant_, n_++); }
  std::size_t below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(next() % n); }

 private:
  std::uint64_t seed_, mutant_;
  std::uint64_t n_ = 0;
};

/// Offsets of structures of the file format, where damage hurts most.
std::vector<std::size_t> landmarks(const Bytes& file);

/// One to sixteen changes of `file`.
void mutate(Bytes& file, const std::vector<std::size_t>& marks, Dice& dice);

/// HDF5's newer structures end with a checksum, which the library verifies: a file with damage inside them is refused
/// before anything else is seen. So checksums are put right after the damage, as an attacker would.
class Checksums {
 public:
  explicit Checksums(const Bytes& whole);
  /// Recomputes the checksums of the blocks that were there in the undamaged file and still are.
  void repair(Bytes& file) const;
  bool empty() const { return blocks_.empty(); }

 private:
  struct Block {
    std::size_t begin, bytes;  ///< what the checksum counts
    std::size_t at;            ///< where it is stored: behind, or (then counted as zero) inside
  };
  std::vector<Block> blocks_;
};

}  // namespace scw::fuzz
