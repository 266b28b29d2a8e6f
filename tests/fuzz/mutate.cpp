#include "mutate.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <string_view>

namespace scw::fuzz {
namespace {

/// Like string_view::find, without memcmp, which the sanitizers watch.
std::size_t find_mark(std::string_view text, std::string_view mark, std::size_t from) {
  for (std::size_t k = from; k + mark.size() <= text.size(); ++k) {
    std::size_t n = 0;
    while (n < mark.size() && text[k + n] == mark[n]) ++n;
    if (n == mark.size()) return k;
  }
  return text.npos;
}

}  // namespace

std::vector<std::size_t> landmarks(const Bytes& file) {
  std::vector<std::size_t> at{0};
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  for (const std::string_view mark :
       {"TREE", "SNOD", "HEAP", "GCOL", "OHDR", "OCHK", "FRHP", "FHDB", "BTHD", "BTLF", "FAHD", "EAHD", "encoding-type",
        "shape", "column-order", "deflate", "categories"})
    for (auto k = find_mark(text, mark, 0); k != text.npos; k = find_mark(text, mark, k + 1)) at.push_back(k);
  return at;
}

void mutate(Bytes& file, const std::vector<std::size_t>& marks, Dice& dice) {
  const auto place = [&] {
    if (dice.below(2) == 0) return dice.below(file.size());
    const std::size_t mark = marks[dice.below(marks.size())];
    const std::size_t reach = 256;
    const std::size_t first = mark > reach / 4 ? mark - reach / 4 : 0;
    return std::min(file.size() - 1, first + dice.below(reach));
  };
  constexpr std::uint64_t kValues[] = {0,          1,          2,          7,
                                       0x7F,       0xFF,       0xFFFF,     0x7FFFFFFF,
                                       0xFFFFFFFF, 0x80000000, 1ULL << 40, 0x7FFFFFFFFFFFFFFF,
                                       ~0ULL,      ~0ULL - 7,  1ULL << 63, 0x2000000000000001};
  const std::size_t times = 1 + dice.below(dice.below(3) == 0 ? 16 : 3);
  for (std::size_t k = 0; k < times && !file.empty(); ++k) {
    const std::size_t at = place();
    switch (dice.below(8)) {
      case 0:
        file[at] ^= static_cast<std::byte>(1U << dice.below(8));
        break;
      case 1:
        file[at] = static_cast<std::byte>(dice.below(256));
        break;
      case 2:
      case 3: {  // an integer of 1, 2, 4 or 8 bytes, aligned like the format's
        const std::size_t n = std::size_t{1} << dice.below(4), where = at / n * n;
        const std::uint64_t v = dice.below(4) == 0 ? dice.next() : kValues[dice.below(std::size(kValues))];
        std::memcpy(file.data() + where, &v, std::min(n, file.size() - where));
        break;
      }
      case 4: {  // plus or minus a little
        std::uint32_t v = 0;
        const std::size_t n = std::min<std::size_t>(4, file.size() - at);
        std::memcpy(&v, file.data() + at, n);
        v += static_cast<std::uint32_t>(dice.below(65)) - 32;
        std::memcpy(file.data() + at, &v, n);
        break;
      }
      case 5: {  // a piece from elsewhere
        const std::size_t from = place(), n = 1 + dice.below(64);
        for (std::size_t i = 0; i < n && at + i < file.size() && from + i < file.size(); ++i)
          file[at + i] = file[from + i];
        break;
      }
      case 6: {
        const std::size_t n = std::min(1 + dice.below(256), file.size() - at);
        std::fill_n(file.begin() + static_cast<std::ptrdiff_t>(at), n, std::byte{0});
        break;
      }
      default:
        if (dice.below(4) == 0) file.resize(at);
        break;
    }
  }
}

namespace {

/// Bob Jenkins' lookup3 ("hashlittle", 2006), which HDF5 uses: format specification, "Checksum".
std::uint32_t lookup3(const std::uint8_t* p, std::size_t n) {
  std::uint32_t a = 0xDEADBEEFU + static_cast<std::uint32_t>(n), b = a, c = a;
  const auto word = [](const std::uint8_t* at, std::size_t have) {
    std::uint32_t v = 0;
    std::memcpy(&v, at, std::min<std::size_t>(have, 4));
    return v;
  };
  while (n > 12) {
    a += word(p, 4);
    b += word(p + 4, 4);
    c += word(p + 8, 4);
    a = (a - c) ^ std::rotl(c, 4);
    c += b;
    b = (b - a) ^ std::rotl(a, 6);
    a += c;
    c = (c - b) ^ std::rotl(b, 8);
    b += a;
    a = (a - c) ^ std::rotl(c, 16);
    c += b;
    b = (b - a) ^ std::rotl(a, 19);
    a += c;
    c = (c - b) ^ std::rotl(b, 4);
    b += a;
    p += 12;
    n -= 12;
  }
  if (n == 0) return c;
  a += word(p, n);
  if (n > 4) b += word(p + 4, n - 4);
  if (n > 8) c += word(p + 8, n - 8);
  c = (c ^ b) - std::rotl(b, 14);
  a = (a ^ c) - std::rotl(c, 11);
  b = (b ^ a) - std::rotl(a, 25);
  c = (c ^ b) - std::rotl(b, 16);
  a = (a ^ c) - std::rotl(c, 4);
  b = (b ^ a) - std::rotl(a, 14);
  c = (c ^ b) - std::rotl(b, 24);
  return c;
}

std::uint32_t checksum(const Bytes& file, std::size_t begin, std::size_t n, std::size_t at) {
  const auto* p = reinterpret_cast<const std::uint8_t*>(file.data()) + begin;
  if (at >= begin + n) return lookup3(p, n);
  std::vector<std::uint8_t> copy(p, p + n);
  std::memset(copy.data() + (at - begin), 0, 4);
  return lookup3(copy.data(), n);
}

}  // namespace

Checksums::Checksums(const Bytes& whole) {
  const std::string_view text(reinterpret_cast<const char*>(whole.data()), whole.size());
  const auto is_sum = [&](std::size_t begin, std::size_t n, std::size_t at) {
    std::uint32_t v = 0;
    if (begin + n > whole.size() || at + 4 > whole.size()) return false;
    std::memcpy(&v, whole.data() + at, 4);
    return v == checksum(whole, begin, n, at);
  };
  const auto each = [&](std::string_view mark, auto&& f) {
    for (auto at = find_mark(text, mark, 0); at != text.npos; at = find_mark(text, mark, at + 1)) f(at);
  };
  each("\x89HDF\r\n\x1a\n", [&](std::size_t at) {
    if (is_sum(at, 44, at + 44)) blocks_.push_back({at, 44, at + 44});
  });
  // Lengths are found by trying.
  for (const char* mark : {"OHDR", "OCHK", "FRHP", "FHIB", "BTHD", "BTIN", "BTLF", "EAHD", "EAIB", "EASB", "EADB",
                           "FAHD", "FADB", "FSHD", "FSSE", "SMTB", "SMLI"})
    each(mark, [&](std::size_t at) {
      for (std::size_t n = 6; n < 2048; ++n)
        if (is_sum(at, n, at + n)) {
          blocks_.push_back({at, n, at + n});
          break;
        }
    });
  // A block of a fractal heap: signature, version, heap, offset (of as many bytes as the heap needs), checksum inside.
  each("FHDB", [&](std::size_t at) {
    for (std::size_t n = 256; n <= 65536; n *= 2)
      for (std::size_t offset = 1; offset <= 8; ++offset)
        if (is_sum(at, n, at + 13 + offset)) {
          blocks_.push_back({at, n, at + 13 + offset});
          return;
        }
  });
}

void Checksums::repair(Bytes& file) const {
  for (const auto& b : blocks_) {
    if (b.begin + b.bytes > file.size() || b.at + 4 > file.size()) continue;
    const std::uint32_t v = checksum(file, b.begin, b.bytes, b.at);
    std::memcpy(file.data() + b.at, &v, 4);
  }
}

}  // namespace scw::fuzz
