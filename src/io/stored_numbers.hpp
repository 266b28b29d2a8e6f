// Numbers in a file, whatever its format, from which ranges are read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scwarp/core/context.hpp"

namespace scw::io {

class StoredNumbers {
 public:
  virtual ~StoredNumbers() = default;
  StoredNumbers(const StoredNumbers&) = delete;
  StoredNumbers& operator=(const StoredNumbers&) = delete;

  /// Extents, outermost first.
  const std::vector<std::int64_t>& dims() const { return dims_; }
  /// numpy's name of the stored type.
  const std::string& dtype() const { return dtype_; }
  /// Rows [first, first + n) along the first dimension, in C order, unpacked by ctx.n_threads threads. False if a value
  /// does not fit exactly; floating-point data are only read as float or double, and rounding those is no misfit. May
  /// be called from several threads at once.
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int32_t* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, std::int64_t* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, float* out) const = 0;
  virtual bool read(const Context& ctx, std::int64_t first, std::int64_t n, double* out) const = 0;
  /// Throws FormatError that names the file and this object.
  [[noreturn]] virtual void fail(const std::string& what) const = 0;

 protected:
  StoredNumbers(std::vector<std::int64_t> dims, std::string dtype) : dims_(std::move(dims)), dtype_(std::move(dtype)) {}

 private:
  std::vector<std::int64_t> dims_;
  std::string dtype_;
};

/// A matrix of cells x genes as it is stored: data alone if it is dense.
struct StoredRows {
  std::int64_t n_rows = 0, n_cols = 0;
  std::unique_ptr<StoredNumbers> indptr, indices, data;
};

/// From HDF5: see FileMatrix::open.
StoredRows open_h5_rows(const Context& ctx, const std::string& path, const std::string& element);

}  // namespace scw::io
