#include "store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

namespace scw::fuzz {
namespace {

constexpr std::size_t kHead = 6;  // lengths of name and content

std::uint32_t crc32c(const std::byte* p, std::size_t n) {
  std::uint32_t c = ~0U;
  for (std::size_t i = 0; i < n; ++i) {
    c ^= std::to_integer<std::uint32_t>(p[i]);
    for (int k = 0; k < 8; ++k) c = c >> 1 ^ ((c & 1U) != 0 ? 0x82F63B78U : 0U);
  }
  return ~c;
}

/// Where a file ends with a checksum: of everything before it, or of an index of pairs of 8 bytes.
struct Sum {
  std::size_t begin = 0, end = 0;  // the checksum follows; equal: none
};

bool is_sum(const Bytes& content, std::size_t begin, std::size_t end) {
  std::uint32_t v = 0;
  std::memcpy(&v, content.data() + end, 4);
  return v == crc32c(content.data() + begin, end - begin);
}

std::vector<Sum> sums_of(const Bytes& content) {
  std::vector<Sum> out;
  const std::size_t n = content.size();
  if (n < 5) return out;
  if (is_sum(content, 0, n - 4)) out.push_back({0, n - 4});
  for (std::size_t bytes = 16; bytes + 4 <= n && bytes <= 64 * 16; bytes += 16) {
    if (is_sum(content, n - 4 - bytes, n - 4)) out.push_back({n - 4 - bytes, n - 4});
    if (is_sum(content, 0, bytes)) out.push_back({0, bytes});
  }
  return out;
}

void repair(Bytes& content, const std::vector<Sum>& sums) {
  for (const auto& s : sums) {
    if (s.end + 4 > content.size()) continue;
    const std::uint32_t v = crc32c(content.data() + s.begin, s.end - s.begin);
    std::memcpy(content.data() + s.end, &v, 4);
  }
}

constexpr std::string_view kNumbers[] = {"0",
                                         "1",
                                         "2",
                                         "3",
                                         "4",
                                         "6",
                                         "7",
                                         "-1",
                                         "16",
                                         "255",
                                         "65536",
                                         "1000000",
                                         "268435456",
                                         "2147483647",
                                         "4294967296",
                                         "1099511627776",
                                         "4611686018427387904",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "18446744073709551615",
                                         "1e308",
                                         "-0.5",
                                         "null",
                                         "true",
                                         "[]",
                                         "{}",
                                         "\"\"",
                                         "[1, 2]",
                                         "\"NaN\""};

constexpr std::string_view kTexts[] = {"<i4",
                                       "<i8",
                                       ">f4",
                                       "<f8",
                                       "|b1",
                                       "|u1",
                                       "<U3",
                                       ">U2",
                                       "|S5",
                                       "|O",
                                       "<f2",
                                       "<c8",
                                       "<M8[ns]",
                                       "int8",
                                       "uint64",
                                       "float16",
                                       "float32",
                                       "float64",
                                       "bool",
                                       "complex64",
                                       "string",
                                       "fixed_length_utf32",
                                       "null_terminated_bytes",
                                       "raw_bytes",
                                       "structured",
                                       "zlib",
                                       "gzip",
                                       "zstd",
                                       "lz4",
                                       "blosc",
                                       "crc32c",
                                       "shuffle",
                                       "vlen-utf8",
                                       "bytes",
                                       "transpose",
                                       "sharding_indexed",
                                       "little",
                                       "big",
                                       "start",
                                       "end",
                                       "default",
                                       "v2",
                                       "/",
                                       ".",
                                       "C",
                                       "F",
                                       "csr_matrix",
                                       "csc_matrix",
                                       "array",
                                       "dataframe",
                                       "categorical",
                                       "string-array",
                                       "nullable-integer",
                                       "nullable-boolean",
                                       "dict",
                                       "rec-array",
                                       "numeric-scalar",
                                       "null",
                                       "raw",
                                       "anndata",
                                       "..",
                                       "../X",
                                       "X",
                                       "_index",
                                       "index",
                                       "0.1.0",
                                       "0.2.0",
                                       "NaN",
                                       "0x7fc00000",
                                       "encoding-type",
                                       "shape",
                                       "regular",
                                       "group",
                                       "codes",
                                       "categories",
                                       "AAAA"};

/// A number, text, true, false or null of JSON.
struct Token {
  std::size_t begin, end;
  bool is_text;
};

std::vector<Token> tokens_of(std::string_view s) {
  std::vector<Token> out;
  for (std::size_t i = 0; i < s.size();) {
    std::size_t k = i + 1;
    if (s[i] == '"') {
      while (k < s.size() && s[k] != '"') k += s[k] == '\\' ? 2 : 1;
      k = std::min(s.size(), k + 1);
      out.push_back({i, k, true});
    } else if (std::isalnum(static_cast<unsigned char>(s[i])) != 0 || s[i] == '-') {
      while (k < s.size() &&
             (std::isalnum(static_cast<unsigned char>(s[k])) != 0 || s[k] == '.' || s[k] == '+' || s[k] == '-'))
        ++k;
      out.push_back({i, k, false});
    }
    i = k;
  }
  return out;
}

void mutate_json(Bytes& content, Dice& dice) {
  std::string s(reinterpret_cast<const char*>(content.data()), content.size());
  const auto tokens = tokens_of(s);
  if (tokens.empty()) return;
  const Token t = tokens[dice.below(tokens.size())], other = tokens[dice.below(tokens.size())];
  const std::string was = s.substr(t.begin, t.end - t.begin), from = s.substr(other.begin, other.end - other.begin);
  std::string put;
  switch (dice.below(8)) {
    case 0:
    case 1:
    case 2:
      put = t.is_text ? fmt::format("\"{}\"", kTexts[dice.below(std::size(kTexts))])
                      : std::string(kNumbers[dice.below(std::size(kNumbers))]);
      break;
    case 3:
      put = kNumbers[dice.below(std::size(kNumbers))];
      break;
    case 4:
      put = from;
      break;
    case 5:
      put = was + ", " + (dice.below(2) == 0 ? was : from);
      break;
    case 6:  // a little more or less
      if (!t.is_text && was.size() < 18 && was.find_first_not_of("0123456789") == was.npos)
        put = std::to_string(std::stoll(was) + static_cast<long long>(dice.below(9)) - 4);
      else
        put = t.is_text ? was.substr(0, was.size() / 2) + '"' : "1.5";
      break;
    default:  // without it, and without the comma before it
      break;
  }
  std::size_t begin = t.begin;
  if (put.empty() && begin >= 2 && s.find_last_of(',', begin) == begin - 2) begin -= 2;
  s.replace(begin, t.end - begin, put);
  content = to_bytes(s);
}

}  // namespace

Bytes pack(const io::ZarrFiles& files) {
  Bytes out;
  for (const auto& [name, content] : files) {
    const auto letters = static_cast<std::uint16_t>(name.size());
    const auto size = static_cast<std::uint32_t>(content.size());
    const std::size_t at = out.size();
    out.resize(at + kHead + letters + size);
    std::memcpy(out.data() + at, &letters, 2);
    std::memcpy(out.data() + at + 2, &size, 4);
    std::memcpy(out.data() + at + kHead, name.data(), letters);
    if (size > 0) std::memcpy(out.data() + at + kHead + letters, content.data(), size);
  }
  return out;
}

io::ZarrFiles unpack(Span<const std::byte> packed) {
  io::ZarrFiles files;
  const auto n = static_cast<std::size_t>(packed.size);
  for (std::size_t at = 0; at + kHead <= n;) {
    std::uint16_t letters = 0;
    std::uint32_t size = 0;
    std::memcpy(&letters, packed.data + at, 2);
    std::memcpy(&size, packed.data + at + 2, 4);
    at += kHead;
    const std::size_t name = std::min<std::size_t>(letters, n - at);
    std::string key(reinterpret_cast<const char*>(packed.data + at), name);
    at += name;
    const std::size_t bytes = std::min<std::size_t>(size, n - at);
    files[std::move(key)].assign(packed.data + at, packed.data + at + bytes);
    at += bytes;
  }
  return files;
}

io::ZarrFiles load_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  io::ZarrFiles files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    files[fs::relative(entry.path(), folder).string()] = to_bytes(std::string{std::istreambuf_iterator<char>(in), {}});
  }
  return files;
}

Bytes mutate_store(const Bytes& packed, std::size_t room, const Change& change, Dice& dice) {
  auto files = unpack(Span<const std::byte>(packed));
  for (std::size_t times = 1 + dice.below(dice.below(4) == 0 ? 6 : 2); times > 0 && !files.empty(); --times) {
    const auto any = [&](bool metadata) {
      auto it = files.begin();
      std::advance(it, dice.below(files.size()));
      for (int tries = 0; tries < 8; ++tries) {
        const auto slash = it->first.rfind('/');
        const std::string_view base = std::string_view(it->first).substr(slash == std::string::npos ? 0 : slash + 1);
        if ((base == "zarr.json" || base.starts_with(".z")) == metadata) break;
        it = files.begin();
        std::advance(it, dice.below(files.size()));
      }
      return it;
    };
    switch (dice.below(16)) {
      case 0: {  // gone
        files.erase(any(dice.below(2) == 0));
        break;
      }
      case 1: {  // another one's content
        const bool metadata = dice.below(2) == 0;
        const auto to = any(metadata), from = any(metadata);
        if (to != from) to->second = from->second;
        break;
      }
      case 2: {  // another name, or there twice
        const auto it = any(dice.below(2) == 0);
        std::string name = it->first;
        if (name.empty()) break;
        if (dice.below(2) == 0)
          name[dice.below(name.size())] = "./0123456789cX_a"[dice.below(16)];
        else
          name = any(dice.below(2) == 0)->first + (dice.below(2) == 0 ? "/0" : "1");
        Bytes content = it->second;
        if (dice.below(2) == 0) files.erase(it);
        files[name] = std::move(content);
        break;
      }
      case 3:
      case 4:
      case 5:
      case 6: {  // bytes of anything
        auto& content = any(dice.below(4) == 0)->second;
        const auto sums = sums_of(content);
        change(content, content.size() + 64);
        if (dice.below(4) > 0) repair(content, sums);
        break;
      }
      default:
        mutate_json(any(true)->second, dice);
    }
  }
  Bytes out = pack(files);
  if (out.size() > room) out.resize(room);
  return out;
}

}  // namespace scw::fuzz
