// Writing Zarr as a Store.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "io/store.hpp"
#include "io/zarr_meta.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::io::zarr {

/// Writes into a folder that the caller made.
class ZarrWriter final : public StoreWriter {
 public:
  ZarrWriter(const Context& ctx, const char* op, std::string name, std::filesystem::path folder,
             const WriteZarrOptions& options)
      : StoreWriter(ctx, op, std::move(name)), folder_(std::move(folder)), options_(options) {}
  const char* format() const override { return options_.format == 2 ? "Zarr version 2" : "Zarr version 3"; }
  std::unique_ptr<GroupWriter> root(const Attributes& attributes) override;
  bool takes(const OpaqueRows& rows) const override { return !rows.dtype.empty(); }
  void copy_extra_attributes(const Store& from) override;
  /// Version 2: puts all metadata together in one file, which spares readers over a network many requests.
  void consolidate() const;

  const std::filesystem::path& folder() const { return folder_; }
  const WriteZarrOptions& options() const { return options_; }
  /// Makes a file. Throws IoError.
  void put(const std::filesystem::path& file, const std::byte* data, std::size_t n) const;
  void put_json(const std::filesystem::path& file, const Json& json) const;

 private:
  std::filesystem::path folder_;
  WriteZarrOptions options_;
};

}  // namespace scw::io::zarr
