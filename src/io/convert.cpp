#include "scwarp/io/convert.hpp"

#include <filesystem>

#include "core/check.hpp"
#include "io/anndata_codec.hpp"
#include "io/output.hpp"
#include "io/store.hpp"

namespace scw::io {
namespace {
constexpr const char* kOp = "convert";
}

void expect_output(const char* op, const std::string& out, bool overwrite) {
  std::error_code none;
  static_cast<void>(format_of(op, out));
  SCW_EXPECT(overwrite || !std::filesystem::exists(out, none), op,
             "'{}' is there already (overwrite=True, or --force of the program, replaces it)", out);
}

void expect_unchanged(const char* op, const AnnData& data) {
  SCW_EXPECT_AS(IoError, data.source == nullptr || data.source->is_unchanged(), op,
                "'{}' was changed while it was read", data.source->name());
}

namespace {

/// A matrix that stays in the file by columns becomes one in memory, which is written by rows. Integers of 64 bits are
/// exact up to 2^53; larger ones throw.
void turn_to_rows(const Context& ctx, const std::string& in, AnnData& data) {
  std::shared_ptr<const Store> store;
  const auto turn = [&](MatrixElement& m, const std::string& name) {
    if (m.stream != nullptr && m.stream->layout == StoredLayout::csc) {
      if (store == nullptr) store = open_store(kOp, in);
      m = read_anndata_matrix(ctx, store, name, {});
    }
    if (m.stream == nullptr && m.stored_layout == StoredLayout::csc) m.stored_layout = StoredLayout::csr;
  };
  if (data.X) turn(*data.X, "X");
  if (data.raw) turn(data.raw->X, "raw/X");  // (anndata 0.6 had raw.X, and no CSC there)
  for (auto& [name, e] : data.layers)
    if (auto* m = std::get_if<MatrixElement>(&e); m != nullptr) turn(*m, "layers/" + name);
}

}  // namespace

void convert(const Context& ctx, const std::string& in, const std::string& out, const ConvertOptions& options) {
  expect_output(kOp, out, options.overwrite);
  ReadOptions read_options = options.read;
  read_options.stream_matrices = true;
  AnnData data = read(ctx, in, read_options);
  if (options.csr) turn_to_rows(ctx, in, data);
  expect_unchanged(kOp, data);
  write(ctx, data, out, options.write);
}

}  // namespace scw::io
