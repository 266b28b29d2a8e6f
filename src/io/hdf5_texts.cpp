// Texts of datasets.
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "io/hdf5_filters.hpp"

namespace scw::io::h5 {

namespace {

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// Objects of the global heap, which holds variable-length strings. We read it ourselves: the library allocates each
/// string separately, and trusts the lengths that it finds.
class GlobalHeap {
 public:
  explicit GlobalHeap(const Dataset& d) : d_(d) {}
  std::string_view get(std::uint64_t address, std::uint32_t index, std::uint32_t length) {
    Collection& c = collection(address);
    const Object* const object = c.find(index);
    if (object == nullptr || length > object->length)
      d_.fail("text {} of the heap at {} is not there or too short", index, address);
    used_ += length;
    if (used_ > d_.source->size() + kFreeBytes) d_.fail("its texts are longer than the file");
    return {reinterpret_cast<const char*>(c.bytes.data()) + object->at, length};
  }

 private:
  struct Object {
    std::uint32_t index = 0;
    std::size_t at = 0;
    std::uint64_t length = 0;
  };
  struct Collection {
    std::vector<std::byte> bytes;
    std::vector<Object> objects;  // by index; numbered from 1 without gaps, unless some were removed
    const Object* find(std::uint32_t index) const {
      if (index - 1 < objects.size() && objects[index - 1].index == index) return &objects[index - 1];
      const auto it = std::lower_bound(objects.begin(), objects.end(), index,
                                       [](const Object& o, std::uint32_t i) { return o.index < i; });
      return it != objects.end() && it->index == index ? &*it : nullptr;
    }
  };
  Collection& collection(std::uint64_t address) {
    if (last_ != nullptr && last_address_ == address) return *last_;
    const auto known = all_.find(address);
    last_ = known != all_.end() ? &known->second : &load_collection(address);
    last_address_ = address;
    return *last_;
  }
  Collection& load_collection(std::uint64_t address) {
    std::byte head[16];
    const auto damaged = [&] { d_.fail("the heap of texts at {} is damaged", address); };
    if (!d_.source->read_at(address, sizeof head, head) || std::memcmp(head, "GCOL\x01", 5) != 0) damaged();
    const auto size = load<std::uint64_t>(head + 8);
    loaded_ += static_cast<std::int64_t>(std::min<std::uint64_t>(size, INT64_MAX / 2));
    if (size < 16 || size > static_cast<std::uint64_t>(d_.source->size())) damaged();
    if (loaded_ > d_.source->size() + kFreeBytes) damaged();  // collections overlap
    Collection c;
    c.bytes.resize(size);
    if (!d_.source->read_at(address, size, c.bytes.data())) damaged();
    for (std::size_t at = 16; size - at >= 16;) {
      const auto index = load<std::uint16_t>(c.bytes.data() + at);
      const auto length = load<std::uint64_t>(c.bytes.data() + at + 8);
      if (index == 0) break;  // the rest is free
      at += 16;
      if (length > size - at) damaged();
      c.objects.push_back({index, at, length});
      at += std::min<std::size_t>((length + 7) / 8 * 8, size - at);
    }
    const auto before = [](const Object& a, const Object& b) { return a.index < b.index; };
    const auto same = [](const Object& a, const Object& b) { return a.index == b.index; };
    if (!std::is_sorted(c.objects.begin(), c.objects.end(), before))
      std::stable_sort(c.objects.begin(), c.objects.end(), before);
    c.objects.erase(std::unique(c.objects.begin(), c.objects.end(), same), c.objects.end());
    return all_.insert_or_assign(address, std::move(c)).first->second;
  }
  const Dataset& d_;
  std::unordered_map<std::uint64_t, Collection> all_;
  Collection* last_ = nullptr;
  std::uint64_t last_address_ = 0;
  std::int64_t used_ = 0, loaded_ = 0;
};

std::string_view cut(std::string_view text, H5T_str_t padding) {
  if (padding == H5T_STR_NULLTERM) return text.substr(0, text.find('\0'));
  const char pad = padding == H5T_STR_SPACEPAD ? ' ' : '\0';
  const auto last = text.find_last_not_of(pad);
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

constexpr std::size_t kReferenceBytes = 16;  // length, address of the heap, number in it

std::vector<std::string> texts_of(const Dataset& d, const std::vector<std::byte>& bytes, std::size_t offset,
                                  std::size_t stride) {
  GlobalHeap heap(d);
  std::vector<std::string> out;
  out.reserve(bytes.size() / stride);
  for (std::size_t at = offset; at < bytes.size(); at += stride) {
    const std::byte* r = bytes.data() + at;
    const auto length = load<std::uint32_t>(r);
    const auto address = load<std::uint64_t>(r + 4);
    if (length == 0 || address == 0 || address == UINT64_MAX) {
      out.emplace_back();
    } else {
      const auto text = heap.get(address, load<std::uint32_t>(r + 12), length);
      out.emplace_back(text.substr(0, text.find('\0')));
    }
  }
  return out;
}

}  // namespace

std::vector<std::byte> stored_elements(const Context& ctx, const Dataset& d, std::size_t element_bytes) {
  if (!has_readable_texts(d)) d.fail<NotSupported>("is stored in a way that scwarp does not read");
  const auto size = static_cast<std::int64_t>(element_bytes);
  const std::int64_t cols = d.dims.empty() ? 1 : d.count / d.dims[0];
  std::vector<std::byte> out(static_cast<std::size_t>(checked_mul(d.count, size)));
  read_blocks(ctx, d, H5I_INVALID_HID, element_bytes, [&](const Block& b) {
    for (std::int64_t i = 0; i < b.n_rows; ++i)
      std::memcpy(out.data() + ((b.row + i) * cols + b.col) * size, b.data + i * b.ld * size,
                  static_cast<std::size_t>(b.n_cols * size));
  });
  return out;
}

std::vector<std::string> read_sequences(const Context& ctx, const Dataset& d, std::size_t base_bytes) {
  const auto bytes = stored_elements(ctx, d, kReferenceBytes);
  GlobalHeap heap(d);
  std::vector<std::string> out;
  out.reserve(bytes.size() / kReferenceBytes);
  for (std::size_t at = 0; at < bytes.size(); at += kReferenceBytes) {
    const std::byte* r = bytes.data() + at;
    const auto length = load<std::uint32_t>(r);
    const auto address = load<std::uint64_t>(r + 4);
    if (length == 0 || address == 0 || address == UINT64_MAX) {
      out.emplace_back();
      continue;
    }
    if (base_bytes > UINT32_MAX / length) d.fail("declares a sequence of {} elements", length);
    out.emplace_back(heap.get(address, load<std::uint32_t>(r + 12), static_cast<std::uint32_t>(length * base_bytes)));
  }
  return out;
}

bool has_readable_texts(const Dataset& d) {
  if (d.count == 0 || (d.type.kind == Kind::string && !d.type.variable)) return true;
  const auto layout = H5Pget_layout(d.plist.get());
  const bool ours = (layout == H5D_CHUNKED && d.dims.size() <= 2 && own_filters(d)) ||
                    (layout == H5D_CONTIGUOUS && H5Dget_offset(d.id.get()) != HADDR_UNDEF);
  H5Eclear2(H5E_DEFAULT);
  return ours;
}

std::vector<std::string> read_strings(const Context& ctx, const Dataset& d, std::shared_ptr<void>* session) {
  if (d.type.kind != Kind::string) d.fail("is of type {} (expected text)", d.type.name);
  const auto n = static_cast<std::size_t>(d.count);
  std::vector<std::string> out;
  if (n == 0) return out;
  const std::int64_t cols = d.dims.empty() ? 1 : d.count / d.dims[0];
  const auto place = [cols](const Block& b, std::int64_t i, std::int64_t j) {
    return static_cast<std::size_t>((b.row + i) * cols + b.col + j);
  };
  if (!d.type.variable) {
    out.resize(n);
    read_blocks(ctx, d, H5I_INVALID_HID, d.type.size, [&](const Block& b) {
      for (std::int64_t i = 0; i < b.n_rows; ++i)
        for (std::int64_t j = 0; j < b.n_cols; ++j)
          out[place(b, i, j)] =
              cut({reinterpret_cast<const char*>(b.data) + static_cast<std::size_t>(i * b.ld + j) * d.type.size,
                   d.type.size},
                  d.type.padding);
    });
    return out;
  }
  const auto references = stored_elements(ctx, d, kReferenceBytes);
  std::optional<SessionPause> pause;
  if (session != nullptr) pause.emplace(*d.source, *session);
  return texts_of(d, references, 0, kReferenceBytes);
}

void read_field(const Context& ctx, const Dataset& d, const std::string& name, hid_t stored, hid_t memory,
                std::int64_t width, void* out) {
  const std::size_t from = H5Tget_size(stored) * static_cast<std::size_t>(width),
                    to = H5Tget_size(memory) * static_cast<std::size_t>(width);
  const auto n = static_cast<std::size_t>(d.count);
  std::size_t record_bytes = 0;
  for (const auto& field : d.source->record(d.address, record_bytes)) {
    if (field.name != name || field.offset > record_bytes || from > record_bytes - field.offset) continue;
    if (n == 0) return;
    const auto raw = stored_elements(ctx, d, record_bytes);
    std::vector<std::byte> column(n * std::max(from, to));
    for (std::size_t i = 0; i < n; ++i)
      std::memcpy(column.data() + i * from, raw.data() + i * record_bytes + field.offset, from);
    if (H5Tconvert(stored, memory, n * static_cast<std::size_t>(width), column.data(), nullptr, H5P_DEFAULT) < 0)
      d.fail("field '{}' cannot be converted ({})", name, last_error());
    std::memcpy(out, column.data(), n * to);
    return;
  }
  d.fail("field '{}' cannot be read", name);
}

std::vector<std::string> read_text_field(const Context& ctx, const Dataset& d, const std::string& name) {
  std::size_t record_bytes = 0;
  for (const auto& field : d.source->record(d.address, record_bytes))
    if (field.name == name && field.is_text && field.offset + kReferenceBytes <= record_bytes)
      return d.count == 0 ? std::vector<std::string>{}
                          : texts_of(d, stored_elements(ctx, d, record_bytes), field.offset, record_bytes);
  d.fail("field '{}' cannot be read", name);
}

}  // namespace scw::io::h5
