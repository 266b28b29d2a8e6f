// Arrays of records, texts of fixed length, and arrays that are passed on as they are.
#include <cstring>

#include "io/numbers.hpp"
#include "io/zarr_array.hpp"

namespace scw::io::zarr {
namespace {

void append_utf8(std::string& out, std::uint32_t c) {
  if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 63));
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
}

}  // namespace

std::string fixed_text(const Type& t, const std::byte* p) {
  std::string out;
  if (t.text == TextForm::bytes) {
    out.assign(reinterpret_cast<const char*>(p), t.element.size);
    out.erase(std::find_if(out.rbegin(), out.rend(), [](char c) { return c != '\0'; }).base(), out.end());
    return out;
  }
  std::size_t n = t.element.size / 4;
  while (n > 0 && load32(p + 4 * (n - 1)) == 0) --n;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint32_t c = load32(p + 4 * i);
    if (t.swapped) c = __builtin_bswap32(c);
    append_utf8(out, c);
  }
  return out;
}

std::optional<StructArray> ZarrArray::records(const Context& ctx) const {
  if (type.kind != Kind::compound || dims.size() != 1) return std::nullopt;
  for (const auto& f : meta_.type.fields) {
    const auto& e = f.type.element;
    const bool known = e.kind == Kind::boolean || e.kind == Kind::string || (e.kind == Kind::floating && e.size <= 8) ||
                       (e.kind == Kind::integer && e.name != "uint64");
    if (!known) return std::nullopt;
  }
  const auto bytes = raw(ctx);
  const auto n = static_cast<std::size_t>(count);
  StructArray out;
  out.n_rows = count;
  for (const auto& f : meta_.type.fields) {
    const auto& e = f.type.element;
    std::vector<std::byte> column(n * e.size);
    for (std::size_t i = 0; i < n; ++i)
      std::memcpy(column.data() + i * e.size, bytes.data() + i * type.size + f.offset, e.size);
    const bool swapped = f.type.swapped || meta_.pipeline.swapped;
    if (swapped && e.size > 1 && f.type.text == TextForm::none) reverse_units(column.data(), column.size(), e.size);
    const auto as = [&]<class T>(T) {
      std::vector<T> values(n);
      if (e.kind == Kind::integer) {
        visit_integer(e.kind, e.size, e.is_signed, [&]<class Src>(Src) {
          for (std::size_t i = 0; i < n; ++i) {
            Src v{};
            std::memcpy(&v, column.data() + i * sizeof v, sizeof v);
            values[i] = static_cast<T>(v);
          }
        });
      } else if (e.size == sizeof(T)) {
        if (n > 0) std::memcpy(values.data(), column.data(), column.size());
      } else {
        for (std::size_t i = 0; i < n; ++i) {
          std::uint16_t h = 0;
          std::memcpy(&h, column.data() + 2 * i, 2);
          values[i] = static_cast<T>(half_to_float(h));
        }
      }
      out.fields.emplace_back(f.name, std::move(values));
    };
    if (e.kind == Kind::floating) {
      e.size <= 4 ? as(float{}) : as(double{});
    } else if (e.kind == Kind::integer) {
      e.size <= 2 || (e.size == 4 && e.is_signed) ? as(std::int32_t{}) : as(std::int64_t{});
    } else if (e.kind == Kind::boolean) {
      Bools flags;
      for (const auto b : column) flags.values.push_back(b != std::byte{0} ? 1 : 0);
      out.fields.emplace_back(f.name, std::move(flags));
    } else {
      std::vector<std::string> texts;
      Type t = f.type;
      t.swapped = swapped;
      for (std::size_t i = 0; i < n; ++i) texts.push_back(fixed_text(t, column.data() + i * e.size));
      out.fields.emplace_back(f.name, std::move(texts));
    }
  }
  return out;
}

std::optional<OpaqueRows> ZarrArray::opaque(const Context& ctx) const {
  const bool number = type.kind == Kind::integer || type.kind == Kind::floating || type.kind == Kind::boolean ||
                      type.name == "complex64" || type.name == "complex128";
  if (is_null || dims.empty() || !number) return std::nullopt;
  OpaqueRows out;
  out.path = path;
  out.shape = dims;
  out.row_bytes = count == 0 ? 0 : count / dims[0] * static_cast<std::int64_t>(type.size);
  out.dtype = type.name;
  out.bytes = raw(ctx);
  return out;
}

}  // namespace scw::io::zarr
