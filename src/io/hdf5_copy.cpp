#include "io/hdf5_copy.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "io/hdf5_filters.hpp"

namespace scw::io::h5 {
namespace {

constexpr int kDeepest = 64;
constexpr std::int64_t kBlockBytes = 16 << 20;
constexpr std::int64_t kFreeChunks = 1 << 16;

std::vector<Filter> filters_of(const Id& plist) {
  std::vector<Filter> out;
  const int n = H5Pget_nfilters(plist.get());
  for (int k = 0; k < n; ++k) {
    unsigned flags = 0, values[32] = {};
    std::size_t n_values = std::size(values);
    const auto id =
        H5Pget_filter2(plist.get(), static_cast<unsigned>(k), &flags, &n_values, values, 0, nullptr, nullptr);
    out.push_back({id, {values, values + std::min(n_values, std::size(values))}});
  }
  return out;
}

/// What values hold that is stored elsewhere, at any depth.
struct Contents {
  bool texts = false, sequences = false, references = false;
  bool any() const { return texts || sequences || references; }
};

Contents contents(const Id& type) {
  Contents out;
  const auto add = [&out](const Id& part) {
    const Contents c = contents(part);
    out.texts = out.texts || c.texts;
    out.sequences = out.sequences || c.sequences;
    out.references = out.references || c.references;
  };
  switch (H5Tget_class(type.get())) {
    case H5T_STRING:
      out.texts = H5Tis_variable_str(type.get()) > 0;
      break;
    case H5T_REFERENCE:
      out.references = true;
      break;
    case H5T_VLEN:
      out.sequences = true;
      add(Id(H5Tget_super(type.get())));
      break;
    case H5T_ARRAY:
      add(Id(H5Tget_super(type.get())));
      break;
    case H5T_COMPOUND:
      for (int k = 0, n = H5Tget_nmembers(type.get()); k < n; ++k)
        add(Id(H5Tget_member_type(type.get(), static_cast<unsigned>(k))));
      break;
    default:
      break;
  }
  return out;
}

class Copier {
 public:
  Copier(const Target& to, const Source& source) : to_(to), ctx_(*to.ctx), source_(source) {}

  /// `place`: where the copy is, from to_.id.
  void copy(const Node& from, const std::string& place, int depth) {
    ctx_.check_cancelled(source_.op());
    if (depth > kDeepest) from.fail("is nested too deep");
    if (is_known(from.address, place)) return;
    if (from.is_group) return group(from, place, depth);
    Node again;
    again.source = from.source;
    again.path = from.path;
    again.address = from.address;
    H5Iinc_ref(from.id.get());
    again.id = Id(from.id.get());
    dataset(h5::dataset(std::move(again)), from, place);
  }

 private:
  void check(bool ok, const std::string& place) const {
    h5::check(ok, source_.op(), *to_.file, to_.path + "/" + place);
  }

  /// Whether the object has a copy, which then gets another name.
  bool is_known(haddr_t address, const std::string& place) {
    const auto [known, is_new] = places_.emplace(address, place);
    if (is_new) return false;
    const Id how = create_links(place);
    check(H5Lcreate_hard(to_.id, known->second.c_str(), to_.id, place.c_str(), how.get(), H5P_DEFAULT) >= 0, place);
    return true;
  }

  void group(const Node& from, const std::string& place, int depth) {
    const Id old(H5Gget_create_plist(from.id.get())), plist(H5Pcreate(H5P_GROUP_CREATE));
    unsigned order = 0;
    if (old && H5Pget_link_creation_order(old.get(), &order) >= 0 && order != 0)
      H5Pset_link_creation_order(plist.get(), order);
    H5Pset_obj_track_times(plist.get(), false);
    const Id how = create_links(place);
    const Id g(H5Gcreate2(to_.id, place.c_str(), how.get(), plist.get(), H5P_DEFAULT));
    check(static_cast<bool>(g), place);
    attributes(from, g.get());
    auto all = links(from);
    std::vector<std::pair<std::int64_t, std::size_t>> by_age;
    for (std::size_t k = 0; order != 0 && k < all.size(); ++k) {
      H5L_info_t info{};
      if (H5Lget_info(from.id.get(), all[k].name.c_str(), &info, H5P_DEFAULT) >= 0 && info.corder_valid)
        by_age.emplace_back(info.corder, k);
    }
    if (by_age.size() == all.size() && order != 0) {
      std::sort(by_age.begin(), by_age.end());
      std::vector<Link> sorted;
      for (const auto& [age, k] : by_age) sorted.push_back(all[k]);
      all = std::move(sorted);
    }
    for (const auto& link : all) member(from, link, place + "/" + link.name, depth + 1);
  }

  void member(const Node& from, const Link& link, const std::string& place, int depth) {
    const std::string path = (from.path == "/" ? "" : from.path) + "/" + link.name;
    H5L_info_t info{};
    if (H5Lget_info(from.id.get(), link.name.c_str(), &info, H5P_DEFAULT) < 0)
      source_.fail(path, "damaged link ({})", last_error());
    if (!link.hard) {
      if (info.type != H5L_TYPE_SOFT) {
        ctx_.warn(fmt::format("'{}', object '{}': a link out of the file is left out", source_.name(), path));
        return;
      }
      if (info.u.val_size > 1 << 16) source_.fail(path, "damaged link");
      std::vector<char> target(info.u.val_size + 1, '\0');
      const Id how = create_links(place);
      if (H5Lget_val(from.id.get(), link.name.c_str(), target.data(), info.u.val_size, H5P_DEFAULT) < 0)
        source_.fail(path, "damaged link ({})", last_error());
      check(H5Lcreate_soft(target.data(), to_.id, place.c_str(), how.get(), H5P_DEFAULT) >= 0, place);
      return;
    }
    source_.check_object(path, info.u.address);
    H5O_info_t object{};
    if (H5Oget_info_by_name2(from.id.get(), link.name.c_str(), &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0)
      source_.fail(path, "damaged ({})", last_error());
    if (object.type == H5O_TYPE_NAMED_DATATYPE) {
      if (is_known(object.addr, place)) return;
      const Id type(H5Topen2(from.id.get(), link.name.c_str(), H5P_DEFAULT)), again(H5Tcopy(type.get()));
      const Id how = create_links(place);
      check(again && H5Tcommit2(to_.id, place.c_str(), again.get(), how.get(), H5P_DEFAULT, H5P_DEFAULT) >= 0, place);
      return;
    }
    copy(child(from, link.name), place, depth);
  }

  struct AttributeCopy {
    hid_t to;
    std::vector<std::string>* left_out;
  };
  static herr_t attribute(hid_t from, const char* name, const H5A_info_t*, void* state) {
    const auto& c = *static_cast<AttributeCopy*>(state);
    const Id a(H5Aopen(from, name, H5P_DEFAULT)), type(H5Aget_type(a.get())), memory(H5Tcopy(type.get()));
    const Id space(H5Aget_space(a.get())), plist(H5Aget_create_plist(a.get()));
    if (!a || !memory || !space || !plist) return -1;
    try {
      if (contents(memory).references) {
        c.left_out->emplace_back(name);
        return 0;
      }
      const Id b(H5Acreate2(c.to, name, memory.get(), space.get(), plist.get(), H5P_DEFAULT));
      if (!b) return -1;
      const auto n = H5Sget_simple_extent_type(space.get()) == H5S_NULL ? 0 : H5Sget_simple_extent_npoints(space.get());
      if (n <= 0) return 0;
      std::vector<std::byte> buffer(static_cast<std::size_t>(n) * H5Tget_size(memory.get()));
      if (H5Aread(a.get(), memory.get(), buffer.data()) < 0) return -1;
      const herr_t written = H5Awrite(b.get(), memory.get(), buffer.data());
      H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, buffer.data());
      return written;
    } catch (...) {
      return -1;
    }
  }
  void attributes(const Node& from, hid_t to) const {
    std::vector<std::string> left_out;
    AttributeCopy state{to, &left_out};
    hsize_t at = 0;
    if (H5Aiterate2(from.id.get(), H5_INDEX_NAME, H5_ITER_INC, &at, &attribute, &state) < 0)
      from.fail("its attributes cannot be copied ({})", last_error());
    for (const auto& name : left_out)
      ctx_.warn(fmt::format("'{}', object '{}': attribute '{}' refers to places in that file and is left out",
                            source_.name(), from.path, name));
  }

  void dataset(const Dataset& d, const Node& from, const std::string& place) {
    const Id type(H5Tcopy(d.type.id.get()));
    const Contents holds = contents(type);
    if (holds.references) {
      ctx_.warn(fmt::format("'{}', object '{}' refers to places in that file and is left out", source_.name(), d.path));
      places_.erase(d.address);
      return;
    }
    // Everything is read and refused before anything is made.
    const bool is_written = d.count > 0 && H5Dget_storage_size(d.id.get()) > 0;
    if (is_written && holds.any() && !has_readable_texts(d))
      d.fail<NotSupported>("its {} are stored in a way that scwarp cannot check, so they cannot be copied",
                           holds.texts ? "texts" : "sequences");
    const Id made = create(d, type, place);
    attributes(from, made.get());
    if (!is_written) return;
    if (d.type.variable)
      write_texts(d, type, made, place);
    else if (holds.sequences)
      write_sequences(d, type, made, place);
    else if (holds.texts)
      write_records(d, type, made, place);
    else
      write_plain(d, type, made, place);
  }

  Id create(const Dataset& d, const Id& type, const std::string& place) const {
    const Id plist(H5Pcopy(d.plist.get()));
    H5Pset_obj_track_times(plist.get(), false);
    H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_DEFAULT);
    const int n = H5Pget_nfilters(plist.get());
    const auto before = filters_of(plist);
    for (int k = 0; k < n; ++k) {
      // The library need not have a filter to store what it has packed.
      const auto& f = before[static_cast<std::size_t>(k)];
      if (f.id >= 0 && H5Zfilter_avail(f.id) <= 0)
        H5Pmodify_filter(plist.get(), f.id, H5Z_FLAG_OPTIONAL, f.values.size(), f.values.data());
    }
    H5Eclear2(H5E_DEFAULT);
    const Id how = create_links(place);
    Id made(H5Dcreate2(to_.id, place.c_str(), type.get(), d.space.get(), how.get(), plist.get(), H5P_DEFAULT));
    check(static_cast<bool>(made), place);
    // Filters work out their own parameters: the chunks were packed with the old ones.
    const auto after = filters_of(Id(H5Dget_create_plist(made.get())));
    const bool same = std::equal(
        before.begin(), before.end(), after.begin(), after.end(),
        [](const Filter& a, const Filter& b) { return a.id == b.id && (a.values.empty() || a.values == b.values); });
    if (!same) d.fail<NotSupported>("has filters with parameters that cannot be copied");
    return made;
  }

  void write_all(const Id& made, hid_t memory, const void* data, const std::string& place) const {
    check(H5Dwrite(made.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, place);
  }

  void write_texts(const Dataset& d, const Id& type, const Id& made, const std::string& place) const {
    const auto texts = read_strings(ctx_, d);
    std::vector<const char*> pointers;
    for (const auto& t : texts) pointers.push_back(t.c_str());
    write_all(made, type.get(), pointers.data(), place);
  }

  void write_sequences(const Dataset& d, const Id& type, const Id& made, const std::string& place) const {
    const Id base(H5Tget_super(type.get()));
    if (H5Tget_class(type.get()) != H5T_VLEN || contents(base).any())
      d.fail<NotSupported>("holds sequences inside of other values, which scwarp cannot copy");
    const std::size_t size = H5Tget_size(base.get());
    auto sequences = read_sequences(ctx_, d, size);
    std::vector<hvl_t> pointers;
    for (auto& s : sequences) pointers.push_back({s.size() / size, s.data()});
    write_all(made, type.get(), pointers.data(), place);
  }

  /// Records with texts: those as pointers, everything else as it is stored.
  void write_records(const Dataset& d, const Id& type, const Id& made, const std::string& place) const {
    std::size_t stored_bytes = 0;
    const auto stored = d.source->record(d.address, stored_bytes);
    const int n = H5Tget_nmembers(type.get());
    struct Field {
      std::string name;
      Id type;
      std::size_t from, at, size;
      bool is_text;
    };
    std::vector<Field> fields;
    std::size_t bytes = 0;
    bool known = n > 0 && static_cast<std::size_t>(n) == stored.size();
    for (int k = 0; known && k < n; ++k) {
      const StoredField& s = stored[static_cast<std::size_t>(k)];
      Id m(H5Tget_member_type(type.get(), static_cast<unsigned>(k)));
      const std::size_t size = H5Tget_size(m.get());
      const bool text = H5Tis_variable_str(m.get()) > 0;
      known = text == s.is_text && (text || !contents(m).any()) &&
              (text || (s.offset <= stored_bytes && size <= stored_bytes - s.offset));
      fields.push_back({s.name, std::move(m), s.offset, bytes, size, text});
      bytes += size;
    }
    if (!known) d.fail<NotSupported>("holds texts inside of other values, which scwarp cannot copy");
    const Id memory(H5Tcreate(H5T_COMPOUND, bytes));
    const auto records = static_cast<std::size_t>(d.count);
    const auto raw = stored_elements(ctx_, d, stored_bytes);
    std::vector<std::byte> rows(records * bytes);
    std::vector<std::vector<std::string>> keep;
    for (const auto& f : fields) {
      check(H5Tinsert(memory.get(), f.name.c_str(), f.at, f.type.get()) >= 0, place);
      if (f.is_text) keep.push_back(read_text_field(ctx_, d, f.name));
      for (std::size_t i = 0; i < records; ++i) {
        if (f.is_text) {
          const char* text = keep.back()[i].c_str();
          std::memcpy(rows.data() + i * bytes + f.at, &text, sizeof text);
        } else {
          std::memcpy(rows.data() + i * bytes + f.at, raw.data() + i * stored_bytes + f.from, f.size);
        }
      }
    }
    write_all(made, memory.get(), rows.data(), place);
  }

  void write_plain(const Dataset& d, const Id& type, const Id& made, const std::string& place) const {
    const auto layout = H5Pget_layout(d.plist.get());
    if (layout == H5D_CHUNKED) return chunks(d, made, place);
    const std::int64_t rows = d.dims.empty() ? 1 : d.dims[0];
    const std::int64_t row_bytes = d.count / rows * static_cast<std::int64_t>(d.type.size);
    if (layout == H5D_COMPACT) {
      std::vector<std::byte> all(static_cast<std::size_t>(rows * row_bytes));
      if (H5Dread(d.id.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()) < 0)
        d.fail("cannot be read ({})", last_error());
      return write_all(made, type.get(), all.data(), place);
    }
    const haddr_t offset = H5Dget_offset(d.id.get());
    H5Eclear2(H5E_DEFAULT);
    if (offset == HADDR_UNDEF) return;  // never written
    const std::uint64_t address = offset - source_.base();
    const std::int64_t step = std::max<std::int64_t>(1, kBlockBytes / row_bytes);
    std::vector<std::byte> block;
    for (std::int64_t first = 0; first < rows; first += step) {
      const std::int64_t n = std::min(step, rows - first);
      block.resize(static_cast<std::size_t>(n * row_bytes));
      if (!source_.read_at(address + static_cast<std::uint64_t>(first * row_bytes), block.size(), block.data()))
        d.fail<IoError>("the file cannot be read: it was cut short or changed since it was opened");
      if (n == rows) return write_all(made, type.get(), block.data(), place);
      const std::vector<hsize_t> extent(d.dims.begin(), d.dims.end());
      std::vector<hsize_t> start(extent.size(), 0), count(extent);
      start[0] = static_cast<hsize_t>(first);
      count[0] = static_cast<hsize_t>(n);
      const Id file(H5Scopy(d.space.get())),
          memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr));
      H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
      check(H5Dwrite(made.get(), type.get(), memory.get(), file.get(), H5P_DEFAULT, block.data()) >= 0, place);
    }
  }

  /// Chunks as they are, packed.
  void chunks(const Dataset& d, const Id& made, const std::string& place) const {
    const std::size_t rank = d.dims.size();
    std::vector<std::byte> packed;
    if (const auto* listed = source_.chunks(d.address); listed != nullptr && rank <= 2) {
      for (const auto& c : *listed) {
        const hsize_t at[2] = {c.row, c.col};
        // (Outside: left over from a dataset that was made smaller.)
        if (c.row >= static_cast<hsize_t>(d.dims[0]) || (rank == 2 && c.col >= static_cast<hsize_t>(d.dims[1])) ||
            c.bytes == 0)
          continue;
        packed.resize(c.bytes);
        if (!source_.read_at(c.address, c.bytes, packed.data()))
          d.fail<IoError>("the file cannot be read at byte {}: it was cut short or changed since it was opened",
                          c.address);
        check(H5Dwrite_chunk(made.get(), H5P_DEFAULT, c.skipped, at, packed.size(), packed.data()) >= 0, place);
      }
      return;
    }
    std::vector<hsize_t> shape(rank), at(rank, 0);
    if (H5Pget_chunk(d.plist.get(), static_cast<int>(rank), shape.data()) != static_cast<int>(rank))
      d.fail("damaged ({})", last_error());
    std::int64_t n = 1;
    for (std::size_t k = 0; k < rank; ++k)
      n = checked_mul(n, (d.dims[k] - 1) / static_cast<std::int64_t>(shape[k]) + 1);
    if (n > kFreeChunks && n > source_.size()) d.fail("declares {} chunks in a file of {} bytes", n, source_.size());
    for (std::int64_t c = 0; c < n; ++c) {
      if (c % 1024 == 0) ctx_.check_cancelled(source_.op());
      hsize_t bytes = 0;
      if (H5Dget_chunk_storage_size(d.id.get(), at.data(), &bytes) < 0) {
        H5Eclear2(H5E_DEFAULT);
        bytes = 0;
      }
      if (bytes > static_cast<hsize_t>(source_.size())) d.fail("has a chunk larger than the file");
      if (bytes > 0) {
        std::uint32_t skipped = 0;
        packed.resize(static_cast<std::size_t>(bytes));
        if (H5Dread_chunk(d.id.get(), H5P_DEFAULT, at.data(), &skipped, packed.data()) < 0)
          d.fail("the chunk at ({}) cannot be read ({})", fmt::join(at, ", "), last_error());
        check(H5Dwrite_chunk(made.get(), H5P_DEFAULT, skipped, at.data(), packed.size(), packed.data()) >= 0, place);
      }
      for (std::size_t k = rank; k-- > 0;) {
        at[k] += shape[k];
        if (at[k] < static_cast<hsize_t>(d.dims[k])) break;
        at[k] = 0;
      }
    }
  }

  const Target& to_;
  const Context& ctx_;
  const Source& source_;
  std::unordered_map<haddr_t, std::string> places_;  // of copies, by the address of what was copied
};

}  // namespace

void copy_object(const Target& to, const std::string& name, const Node& from) {
  Copier(to, *from.source).copy(from, name, 0);
}

}  // namespace scw::io::h5
