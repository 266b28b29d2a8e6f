// A matrix of cells x genes in a store, to be read by rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/store.hpp"

namespace scw::io {

/// Its arrays: data alone if it is dense. They are read from any thread, without the store's session.
struct StoredRows {
  StoredRows() = default;
  StoredRows(StoredRows&&) = default;
  StoredRows& operator=(StoredRows&&) = delete;
  ~StoredRows();

  std::shared_ptr<const Store> store;
  std::int64_t n_rows = 0, n_cols = 0;
  std::unique_ptr<StoredArray> indptr, indices, data;
};

/// Checks everything but the contents of the arrays; see FileMatrix::open.
StoredRows open_rows(const Context& ctx, const char* op, const std::string& path, const std::string& element);

}  // namespace scw::io
