#include "io/zarr_write.hpp"

#include <blosc.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "core/parallel.hpp"
#include "io/positioned.hpp"
#include "io/zarr_codecs.hpp"
#include "io/zarr_store.hpp"

namespace scw::io::zarr {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kChunkBytes = 4 << 20;
constexpr std::int64_t kInnerBytes = 1 << 20;  // of a chunk inside a shard
constexpr std::int64_t kShardBytes = 32 << 20;
constexpr std::int64_t kTextsPerChunk = 1 << 17;

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

template <class T>
void append(std::vector<std::byte>& out, T v) {
  const std::size_t n = out.size();
  out.resize(n + sizeof v);
  std::memcpy(out.data() + n, &v, sizeof v);
}

class Packer {
 public:
  Packer(const WriteZarrOptions& options, std::size_t element) : codec_(options.codec), element_(element) {
    const bool is_blosc = codec_ == ZarrCodec::blosc_lz4 || codec_ == ZarrCodec::blosc_zstd;
    level_ = options.level >= 0 ? options.level : is_blosc ? 5 : codec_ == ZarrCodec::zstd ? 3 : 1;
  }
  ~Packer() {
    if (deflate_ != nullptr) libdeflate_free_compressor(deflate_);
    ZSTD_freeCCtx(zstd_);
  }
  Packer(const Packer&) = delete;
  Packer& operator=(const Packer&) = delete;
  std::vector<std::byte> plain, packed;

  /// plain -> packed
  void pack() {
    std::size_t n = 0;
    switch (codec_) {
      case ZarrCodec::none:
        packed = plain;
        return;
      case ZarrCodec::zstd:
        packed.resize(ZSTD_compressBound(plain.size()));
        if (zstd_ == nullptr) zstd_ = ZSTD_createCCtx();
        SCW_ASSERT(zstd_ != nullptr);
        n = ZSTD_compressCCtx(zstd_, packed.data(), packed.size(), plain.data(), plain.size(), level_);
        SCW_ASSERT(ZSTD_isError(n) == 0);
        break;
      case ZarrCodec::gzip:
        if (deflate_ == nullptr) deflate_ = libdeflate_alloc_compressor(level_);
        SCW_ASSERT(deflate_ != nullptr);
        packed.resize(libdeflate_gzip_compress_bound(deflate_, plain.size()));
        n = libdeflate_gzip_compress(deflate_, plain.data(), plain.size(), packed.data(), packed.size());
        SCW_ASSERT(n > 0);
        break;
      default: {
        packed.resize(plain.size() + BLOSC_MAX_OVERHEAD);
        const char* inside = codec_ == ZarrCodec::blosc_lz4 ? "lz4" : "zstd";
        const int got = blosc_compress_ctx(std::min(level_, 9), BLOSC_SHUFFLE, element_, plain.size(), plain.data(),
                                           packed.data(), packed.size(), inside, 0, 1);
        SCW_ASSERT(got > 0);
        n = static_cast<std::size_t>(got);
      }
    }
    packed.resize(n);
  }

  Json v2() const {
    switch (codec_) {
      case ZarrCodec::none:
        return nullptr;
      case ZarrCodec::zstd:
        return {{"id", "zstd"}, {"level", level_}};
      case ZarrCodec::gzip:
        return {{"id", "gzip"}, {"level", std::min(level_, 9)}};
      default:
        return {{"id", "blosc"},
                {"cname", codec_ == ZarrCodec::blosc_lz4 ? "lz4" : "zstd"},
                {"clevel", std::min(level_, 9)},
                {"shuffle", 1},
                {"blocksize", 0}};
    }
  }
  /// Adds itself to the codecs of an array.
  void v3(Json& codecs) const {
    switch (codec_) {
      case ZarrCodec::none:
        return;
      case ZarrCodec::zstd:
        codecs.push_back({{"name", "zstd"}, {"configuration", {{"level", level_}, {"checksum", false}}}});
        return;
      case ZarrCodec::gzip:
        codecs.push_back({{"name", "gzip"}, {"configuration", {{"level", std::min(level_, 9)}}}});
        return;
      default:
        codecs.push_back({{"name", "blosc"},
                          {"configuration",
                           {{"typesize", element_},
                            {"cname", codec_ == ZarrCodec::blosc_lz4 ? "lz4" : "zstd"},
                            {"clevel", std::min(level_, 9)},
                            {"shuffle", "shuffle"},
                            {"blocksize", 0}}}});
    }
  }

 private:
  ZarrCodec codec_;
  int level_ = 1;
  std::size_t element_;
  libdeflate_compressor* deflate_ = nullptr;
  ZSTD_CCtx* zstd_ = nullptr;
};

/// A file of the new store, written piece by piece. Throws IoError.
class OutputFile {
 public:
  OutputFile(const ZarrWriter& out, fs::path path)
      : out_(out), path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    expect(fd_ >= 0);
  }
  ~OutputFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void append(const std::byte* data, std::size_t n) {
    for (std::size_t done = 0; done < n;) {
      const auto got = ::write(fd_, data + done, n - done);
      if (got < 0 && errno == EINTR) continue;
      expect(got > 0);
      done += static_cast<std::size_t>(got);
    }
  }
  void close() {
    const int fd = fd_;
    fd_ = -1;
    expect(::close(fd) == 0);
  }

 private:
  void expect(bool ok) const {
    const int reason = errno;
    SCW_EXPECT_AS(IoError, ok, out_.op(), "'{}': '{}' cannot be written ({})", out_.name(),
                  path_.lexically_relative(out_.folder()).string(), std::strerror(reason));
  }

  const ZarrWriter& out_;
  fs::path path_;
  int fd_;
};

/// What the metadata of an array say in both versions.
struct Description {
  Json v2_dtype, v3_type, fill;
  std::size_t element = 1;  ///< bytes; 1 for texts of variable length
  bool is_text = false;
};

Json json_of(const Attribute& a) {
  return std::visit([](const auto& v) { return Json(v); }, a);
}
Json json_of(const Attributes& attributes) {
  Json out = Json::object();
  for (const auto& [key, value] : attributes) out[key] = json_of(value);
  return out;
}

/// Code points of a text; what is no UTF-8 becomes U+FFFD.
std::vector<std::uint32_t> decode_utf8(std::string_view s) {
  std::vector<std::uint32_t> out;
  for (std::size_t i = 0; i < s.size();) {
    const auto c = static_cast<unsigned char>(s[i]);
    const std::size_t n = c < 0x80                ? 1
                          : c >= 0xC2 && c < 0xE0 ? 2
                          : c >= 0xE0 && c < 0xF0 ? 3
                          : c >= 0xF0 && c < 0xF5 ? 4
                                                  : 0;
    std::uint32_t v = n == 1 ? c : n == 2 ? c & 31U : n == 3 ? c & 15U : c & 7U;
    bool ok = n > 0 && i + n <= s.size();
    for (std::size_t k = 1; ok && k < n; ++k) {
      const auto d = static_cast<unsigned char>(s[i + k]);
      ok = (d & 0xC0U) == 0x80U;
      v = v << 6 | (d & 63U);
    }
    out.push_back(ok ? v : 0xFFFDU);
    i += ok ? n : 1;
  }
  return out;
}

class ZarrGroup final : public GroupWriter {
 public:
  ZarrGroup(const ZarrWriter& out, std::string path, const Attributes& attributes)
      : GroupWriter(std::move(path)),
        out_(out),
        folder_(out.folder() / (this->path.empty() ? "" : this->path.substr(1))) {
    if (out_.options().format == 2) {
      out_.put_json(folder_ / ".zgroup", {{"zarr_format", 2}});
      out_.put_json(folder_ / ".zattrs", json_of(attributes));
    } else {
      out_.put_json(folder_ / "zarr.json",
                    {{"zarr_format", 3}, {"node_type", "group"}, {"attributes", json_of(attributes)}});
    }
  }

  std::unique_ptr<GroupWriter> group(const std::string& name, const Attributes& attributes) override {
    make_folder(name);
    return std::make_unique<ZarrGroup>(out_, path + "/" + name, attributes);
  }
  void numbers(const std::string& name, std::string_view dtype, const std::vector<std::int64_t>& dims, bool,
               const FillRows& fill, const Attributes& attributes) override {
    Description d;
    d.v2_dtype = v2_dtype(dtype);
    SCW_ASSERT(!d.v2_dtype.is_null());
    d.v3_type = std::string(dtype);
    const bool complex = dtype.starts_with("complex"), floating = dtype.starts_with("float");
    d.fill = dtype == "bool" ? Json(false) : complex ? Json::array({0.0, 0.0}) : floating ? Json(0.0) : Json(0);
    const std::string text = d.v2_dtype.get<std::string>();
    d.element = static_cast<std::size_t>(std::stoi(text.substr(2)));
    write(name, d, dims, attributes,
          [&](std::int64_t first, std::int64_t n, std::int64_t step, std::vector<std::byte>& plain) {
            const std::int64_t row = row_elements(dims) * static_cast<std::int64_t>(d.element);
            plain.resize(static_cast<std::size_t>(step * row));
            fill(first, n, plain.data());
            std::fill(plain.begin() + n * row, plain.end(), std::byte{0});
          });
  }
  void texts(const std::string& name, const std::vector<std::int64_t>& dims, const std::vector<std::string>& values,
             const Attributes& attributes) override {
    Description d;
    d.v2_dtype = "|O";
    d.v3_type = "string";
    d.fill = "";
    d.is_text = true;
    write(name, d, dims, attributes,
          [&](std::int64_t first, std::int64_t n, std::int64_t step, std::vector<std::byte>& plain) {
            const std::int64_t row = row_elements(dims);
            plain.clear();
            append(plain, static_cast<std::uint32_t>(step * row));
            for (std::int64_t i = first * row; i < (first + n) * row; ++i) {
              const std::string& text = values[static_cast<std::size_t>(i)];
              append(plain, static_cast<std::uint32_t>(text.size()));
              const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
              plain.insert(plain.end(), bytes, bytes + text.size());
            }
            for (std::int64_t i = n * row; i < step * row; ++i) append(plain, std::uint32_t{0});
          });
  }
  void null(const std::string& name, const Attributes& attributes) override {
    Description d;
    d.v2_dtype = "|b1";
    d.v3_type = "bool";
    d.fill = false;
    write(name, d, {}, attributes, {});
  }
  void records(const std::string& name, const StructArray& s, const Attributes& attributes) override;
  void opaque(const std::string& name, const OpaqueRows& o, const Attributes& attributes) override {
    numbers(
        name, o.dtype, o.shape, false,
        [&](std::int64_t first, std::int64_t rows, std::byte* out) {
          std::memcpy(out, o.bytes.data() + first * o.row_bytes, static_cast<std::size_t>(rows * o.row_bytes));
        },
        attributes);
  }
  void copy(const std::string& name, const Store& from, const std::string& from_path) override;

 private:
  /// Bytes (before packing) of rows [first, first + n), filled up to `step` rows.
  using FillChunk =
      std::function<void(std::int64_t first, std::int64_t n, std::int64_t step, std::vector<std::byte>& plain)>;

  static std::int64_t row_elements(const std::vector<std::int64_t>& dims) {
    std::int64_t n = 1;
    for (std::size_t k = 1; k < dims.size(); ++k) n = checked_mul(n, dims[k]);
    return n;
  }
  fs::path make_folder(const std::string& name);
  /// Metadata, and the chunks if `fill` is there.
  void write(const std::string& name, const Description& d, const std::vector<std::int64_t>& dims,
             const Attributes& attributes, const FillChunk& fill);

  const ZarrWriter& out_;
  fs::path folder_;
};

/// (A name with slashes is groups in one another, as in HDF5.)
fs::path ZarrGroup::make_folder(const std::string& name) {
  const auto check = [&](const std::string& part) {
    const bool reserved = part.starts_with(".z") || part == "zarr.json";
    SCW_EXPECT(is_plain_name(part) && !reserved, out_.op(), "'{}': '{}/{}' cannot be the name of an element in Zarr",
               out_.name(), path, name);
  };
  fs::path at = folder_;
  std::string done = path;
  for (std::size_t begin = 0;;) {
    const auto slash = name.find('/', begin);
    const std::string part = name.substr(begin, slash == std::string::npos ? slash : slash - begin);
    check(part);
    at /= part;
    done += "/" + part;
    std::error_code ec;
    const bool is_new = fs::create_directory(at, ec);
    SCW_EXPECT_AS(IoError, !ec, out_.op(), "'{}': cannot make the folder of '{}' ({})", out_.name(), done,
                  ec.message());
    if (slash == std::string::npos) {
      SCW_EXPECT(is_new, out_.op(), "'{}': '{}' is there twice", out_.name(), done);
      return at;
    }
    if (is_new) ZarrGroup(out_, done, encoding("dict", "0.1.0"));
    begin = slash + 1;
  }
}

void ZarrGroup::write(const std::string& name, const Description& d, const std::vector<std::int64_t>& dims,
                      const Attributes& attributes, const FillChunk& fill) {
  const WriteZarrOptions& options = out_.options();
  const fs::path folder = make_folder(name);
  const std::int64_t rows = dims.empty() ? 1 : dims[0], cols = row_elements(dims);
  const std::int64_t row_bytes = checked_mul(cols, static_cast<std::int64_t>(d.element));
  const auto fitting = [&](std::int64_t bytes) {
    const std::int64_t most = std::max<std::int64_t>(
        1, d.is_text ? kTextsPerChunk / std::max<std::int64_t>(1, cols) : bytes / std::max<std::int64_t>(1, row_bytes));
    // As equal as can be if they are few. Many are as long as they may, so that they begin where those of other files
    // do, and converting unpacks nothing twice.
    constexpr std::int64_t kMany = 8;
    const std::int64_t n = std::max<std::int64_t>(1, chunk_count(rows, most));
    return n >= kMany ? most : std::max<std::int64_t>(1, chunk_count(rows, n));
  };
  const std::int64_t inner_bytes = options.chunk_bytes > 0 ? options.chunk_bytes : kInnerBytes;
  std::int64_t step = fitting(options.chunk_bytes > 0 ? options.chunk_bytes : kChunkBytes), per_shard = 1;
  bool sharded = false;
  if (options.format == 3 && options.shards && !dims.empty() && row_bytes > 0 && rows > fitting(inner_bytes)) {
    sharded = true;
    step = fitting(inner_bytes);
    per_shard =
        std::clamp<std::int64_t>(d.is_text ? 64 : kShardBytes / std::max<std::int64_t>(1, checked_mul(step, row_bytes)),
                                 1, chunk_count(rows, step));
  }
  SCW_EXPECT_AS(NotSupported, checked_mul(step, row_bytes) < BLOSC_MAX_BUFFERSIZE, out_.op(),
                "'{}': a row of '{}/{}' has {} bytes (expected less than 2^31)", out_.name(), path, name, row_bytes);
  std::vector<std::int64_t> chunk, shard;
  for (std::size_t k = 0; k < dims.size(); ++k) {
    chunk.push_back(k == 0 ? step : std::max<std::int64_t>(1, dims[k]));
    shard.push_back(k == 0 ? step * per_shard : chunk.back());
  }

  const Packer model(options, d.element);
  if (options.format == 2) {
    Json filters = nullptr;
    if (d.is_text) filters = Json::array({{{"id", "vlen-utf8"}}});
    out_.put_json(folder / ".zarray", {{"zarr_format", 2},
                                       {"shape", dims},
                                       {"chunks", chunk},
                                       {"dtype", d.v2_dtype},
                                       {"fill_value", d.fill},
                                       {"order", "C"},
                                       {"filters", filters},
                                       {"dimension_separator", "."},
                                       {"compressor", model.v2()}});
    out_.put_json(folder / ".zattrs", json_of(attributes));
  } else {
    Json codecs = Json::array();
    if (d.is_text)
      codecs.push_back({{"name", "vlen-utf8"}, {"configuration", Json::object()}});
    else if (d.element == 1)
      codecs.push_back({{"name", "bytes"}});
    else
      codecs.push_back({{"name", "bytes"}, {"configuration", {{"endian", "little"}}}});
    model.v3(codecs);
    if (sharded) {
      const Json index =
          Json::array({{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}, {{"name", "crc32c"}}});
      codecs = Json::array(
          {{{"name", "sharding_indexed"},
            {"configuration",
             {{"chunk_shape", chunk}, {"codecs", codecs}, {"index_codecs", index}, {"index_location", "end"}}}}});
    }
    out_.put_json(folder / "zarr.json",
                  {{"zarr_format", 3},
                   {"node_type", "array"},
                   {"shape", dims},
                   {"data_type", d.v3_type},
                   {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", shard}}}}},
                   {"chunk_key_encoding", {{"name", "default"}, {"configuration", {{"separator", "/"}}}}},
                   {"fill_value", d.fill},
                   {"codecs", codecs},
                   {"attributes", json_of(attributes)},
                   {"storage_transformers", Json::array()}});
  }
  if (!fill || rows == 0 || cols == 0) return;

  // Every file is written by one thread; the folders of version 3 are made before.
  const auto key = [&](std::int64_t number) {
    std::string at = options.format == 3 ? "c" : "";
    for (std::size_t k = 0; k < dims.size(); ++k) {
      if (options.format == 3)
        at += '/';
      else if (k > 0)
        at += '.';
      at += std::to_string(k == 0 ? number : 0);
    }
    return folder / (at.empty() ? "0" : at);
  };
  const std::int64_t chunks = chunk_count(rows, step), files = chunk_count(chunks, per_shard);
  if (options.format == 3 && !dims.empty()) {
    std::error_code ec;
    for (std::int64_t f = 0; f < (dims.size() == 1 ? 1 : files) && !ec; ++f)
      fs::create_directories(key(f).parent_path(), ec);
    SCW_EXPECT_AS(IoError, !ec, out_.op(), "'{}': cannot make the folders of '{}/{}' ({})", out_.name(), path, name,
                  ec.message());
  }
  std::vector<std::unique_ptr<Packer>> packers(static_cast<std::size_t>(std::max(1, out_.ctx().n_threads)));
  parallel_chunks(out_.ctx(), files, 1, [&](std::int64_t f, std::int64_t, std::int64_t, int worker) {
    auto& owner = packers[static_cast<std::size_t>(worker)];
    if (!owner) owner = std::make_unique<Packer>(options, d.element);
    Packer& p = *owner;
    const auto pack = [&](std::int64_t c) {
      fill(c * step, std::min(step, rows - c * step), step, p.plain);
      p.pack();
    };
    if (!sharded) {
      pack(f);
      return out_.put(key(f), p.packed.data(), p.packed.size());
    }
    std::vector<std::byte> index;
    std::uint64_t at = 0;
    OutputFile file(out_, key(f));
    for (std::int64_t k = 0; k < per_shard; ++k) {
      const std::int64_t c = f * per_shard + k;
      if (c < chunks) {
        out_.ctx().check_cancelled(out_.op());
        pack(c);
        file.append(p.packed.data(), p.packed.size());
        append(index, at);
        append(index, static_cast<std::uint64_t>(p.packed.size()));
        at += p.packed.size();
      } else {
        append(index, ~std::uint64_t{0});
        append(index, ~std::uint64_t{0});
      }
    }
    append(index, crc32c(index.data(), index.size()));
    file.append(index.data(), index.size());
    file.close();
  });
}

/// Records as anndata writes them to Zarr: texts of fixed length, in four bytes a character.
void ZarrGroup::records(const std::string& name, const StructArray& s, const Attributes& attributes) {
  Description d;
  Json v2 = Json::array(), v3 = Json::array();
  std::vector<std::size_t> offsets, sizes;
  d.element = 0;
  for (const auto& [field, data] : s.fields) {
    Json type, type3;
    std::size_t size = 0;
    std::visit(Overload{[&](const std::vector<std::string>& v) {
                          std::size_t longest = 1;
                          for (const auto& text : v) longest = std::max(longest, decode_utf8(text).size());
                          size = 4 * longest;
                          type = fmt::format("<U{}", longest);
                          type3 = {{"name", "fixed_length_utf32"}, {"configuration", {{"length_bytes", size}}}};
                        },
                        [&](const Bools&) {
                          size = 1;
                          type = "|b1";
                          type3 = "bool";
                        },
                        [&]<class T>(const std::vector<T>&) {
                          size = sizeof(T);
                          type3 = fmt::format("{}{}", std::is_floating_point_v<T> ? "float" : "int", size * 8);
                          type = v2_dtype(type3.get<std::string>());
                        }},
               data);
    v2.push_back(Json::array({field, type}));
    v3.push_back(Json::array({field, type3}));
    offsets.push_back(d.element);
    sizes.push_back(size);
    d.element += size;
  }
  d.v2_dtype = v2;
  d.v3_type = {{"name", "structured"}, {"configuration", {{"fields", v3}}}};
  d.fill = to_base64(std::vector<std::byte>(d.element));
  write(name, d, {s.n_rows}, attributes,
        [&](std::int64_t first, std::int64_t n, std::int64_t step, std::vector<std::byte>& plain) {
          plain.assign(static_cast<std::size_t>(step) * d.element, std::byte{0});
          for (std::size_t k = 0; k < s.fields.size(); ++k) {
            const auto to = [&](std::int64_t i) {
              return plain.data() + static_cast<std::size_t>(i) * d.element + offsets[k];
            };
            const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(first + i); };
            std::visit(Overload{[&](const std::vector<std::string>& v) {
                                  for (std::int64_t i = 0; i < n; ++i) {
                                    const auto points = decode_utf8(v[at(i)]);
                                    if (!points.empty()) std::memcpy(to(i), points.data(), points.size() * 4);
                                  }
                                },
                                [&](const Bools& v) {
                                  for (std::int64_t i = 0; i < n; ++i) std::memcpy(to(i), &v.values[at(i)], 1);
                                },
                                [&](const auto& v) {
                                  for (std::int64_t i = 0; i < n; ++i) std::memcpy(to(i), &v[at(i)], sizes[k]);
                                }},
                       s.fields[k].second);
          }
        });
}

void ZarrGroup::copy(const std::string& name, const Store& from, const std::string& from_path) {
  const auto& source = static_cast<const ZarrStore&>(from);
  const fs::path to = make_folder(name);
  const auto walk = [&](const auto& self, const std::string& folder, const fs::path& target, int depth) -> void {
    for (const auto& e : source.tree().list(folder)) {
      const std::string key = folder + "/" + e.name;
      SCW_EXPECT_AS(IoError, !e.is_link && depth < 64, out_.op(), "'{}': '{}' of '{}' is a link or nested too deep",
                    out_.name(), key, from.name());
      if (e.is_folder) {
        std::error_code ec;
        fs::create_directory(target / e.name, ec);
        SCW_EXPECT_AS(IoError, !ec, out_.op(), "'{}': cannot make a folder ({})", out_.name(), ec.message());
        self(self, key, target / e.name, depth + 1);
        continue;
      }
      SCW_EXPECT_AS(IoError, source.tree().is_old(key), out_.op(),
                    "'{}/{}' is to be copied from '{}', which was changed since it was read", path, name, from.name());
      std::vector<std::byte> bytes;
      SCW_EXPECT_AS(IoError, source.tree().read(key, bytes), out_.op(), "'{}': '{}' cannot be read", from.name(), key);
      out_.put(target / e.name, bytes.data(), bytes.size());
    }
  };
  walk(walk, from_path.substr(1), to, 0);
}

}  // namespace

void ZarrWriter::put(const fs::path& file, const std::byte* data, std::size_t n) const {
  OutputFile to(*this, file);
  to.append(data, n);
  to.close();
}

void ZarrWriter::put_json(const fs::path& file, const Json& json) const {
  std::string text;
  try {
    text = json.dump(2);
  } catch (const Json::exception& e) {
    detail::fail<InvalidArgument>(op_, "'{}': names and texts of '{}' are not UTF-8 ({})", name_,
                                  file.lexically_relative(folder_).string(), e.what());
  }
  put(file, reinterpret_cast<const std::byte*>(text.data()), text.size());
}

std::unique_ptr<GroupWriter> ZarrWriter::root(const Attributes& attributes) {
  return std::make_unique<ZarrGroup>(*this, "", attributes);
}

namespace {

/// The files with metadata below a folder, parents first, with their keys.
std::vector<std::pair<std::string, fs::path>> metadata_files(const ZarrWriter& writer, const fs::path& root,
                                                             std::initializer_list<const char*> names) {
  std::vector<std::pair<std::string, fs::path>> out;
  std::error_code error;
  for (fs::recursive_directory_iterator e(root, error), end; !error && e != end; e.increment(error))
    for (const char* name : names)
      if (e->path().filename() == name) out.emplace_back(e->path().lexically_relative(root).string(), e->path());
  SCW_EXPECT_AS(IoError, !error, writer.op(), "'{}' cannot be listed ({})", root.string(), error.message());
  std::sort(out.begin(), out.end());
  return out;
}

Json load_json(const ZarrWriter& out, const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  SCW_EXPECT_AS(IoError, !error, out.op(), "'{}' cannot be read again ({})", file.string(), error.message());
  std::vector<std::byte> text(size);
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  const bool ok =
      fd >= 0 && read_fully(fd, text.data(), static_cast<std::int64_t>(size), 0) == static_cast<std::int64_t>(size);
  if (fd >= 0) ::close(fd);
  SCW_EXPECT_AS(IoError, ok, out.op(), "'{}' cannot be read again", file.string());
  try {
    return parse_json(text);
  } catch (const Damage& d) {
    detail::fail<FormatError>(out.op(), "'{}': {}", file.string(), d.what);
  }
}

}  // namespace

void ZarrWriter::copy_extra_attributes(const Store& from) {
  static const std::set<std::string> own{"h5sparse_format",  "h5sparse_shape", "encoding-type",
                                         "encoding-version", "shape",          "_index",
                                         "column-order",     "ordered",        "categories"};
  const auto& source = static_cast<const ZarrStore&>(from);
  const bool v3 = options_.format == 3;
  for (const auto& [key, file] : metadata_files(*this, folder_, {v3 ? "zarr.json" : ".zattrs"})) {
    const auto slash = key.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : key.substr(0, slash);
    Json theirs;
    try {
      bool is_group = false;
      const Json metadata = source.metadata(folder, is_group);
      if (metadata.is_null()) continue;
      theirs = source.attributes(folder, metadata);
    } catch (const FormatError&) {
      continue;  // damaged where nobody looked
    }
    Json mine = load_json(*this, file);
    Json& attributes = v3 ? mine["attributes"] : mine;
    bool changed = false;
    for (const auto& [name, value] : theirs.items())
      if (!own.contains(name) && !attributes.contains(name)) {
        attributes[name] = value;
        changed = true;
      }
    if (changed) put_json(file, mine);
  }
}

void ZarrWriter::consolidate() const {
  if (options_.format != 2) return;
  Json all = Json::object();
  for (const auto& [key, file] : metadata_files(*this, folder_, {".zgroup", ".zarray", ".zattrs"}))
    all[key] = load_json(*this, file);
  put_json(folder_ / ".zmetadata", {{"zarr_consolidated_format", 1}, {"metadata", std::move(all)}});
}

}  // namespace scw::io::zarr
