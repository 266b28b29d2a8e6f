// An HDF5 file that is being written, as a Store.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "io/hdf5.hpp"
#include "io/store.hpp"

namespace scw::io {

/// Writes into a file that the caller opened and closes, within a Session.
class HdfWriter final : public StoreWriter {
 public:
  HdfWriter(const Context& ctx, const char* op, std::string name, hid_t file, h5::WriteOptions options)
      : StoreWriter(ctx, op, std::move(name)), file_(file), options_(options) {}
  const char* format() const override { return "HDF5"; }
  std::unique_ptr<GroupWriter> root(const Attributes& attributes) override;
  bool takes(const OpaqueRows&) const override { return true; }
  void copy_extra_attributes(const Store& from) override;

 private:
  hid_t file_;
  h5::WriteOptions options_;
};

}  // namespace scw::io
