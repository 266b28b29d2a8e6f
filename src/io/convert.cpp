#include "scwarp/io/convert.hpp"

#include <filesystem>

#include "core/check.hpp"
#include "io/output.hpp"
#include "io/store.hpp"

namespace scw::io {
namespace {
constexpr const char* kOp = "convert";
}

void expect_output(const char* op, const std::string& out, bool overwrite) {
  std::error_code none;
  static_cast<void>(format_of(op, out));
  SCW_EXPECT(overwrite || !std::filesystem::exists(out, none), op, "'{}' is there already (overwrite it with --force)",
             out);
}

void expect_unchanged(const char* op, const AnnData& data) {
  SCW_EXPECT_AS(IoError, data.source == nullptr || data.source->is_unchanged(), op,
                "'{}' was changed while it was read", data.source->name());
}

void convert(const Context& ctx, const std::string& in, const std::string& out, const ConvertOptions& options) {
  expect_output(kOp, out, options.overwrite);
  ReadOptions read_options = options.read;
  read_options.stream_matrices = true;
  const AnnData data = read(ctx, in, read_options);
  expect_unchanged(kOp, data);
  write(ctx, data, out, options.write);
}

}  // namespace scw::io
