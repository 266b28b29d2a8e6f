// Kind: reader. Determinism tier A. What an HDF5 file (h5ad, 10x h5) or a Zarr store holds, without reading its data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scwarp/core/config.hpp"

namespace scw::io {

struct FileEntry {
  std::string path;                 ///< "/X", "/obs/leiden"
  std::string kind;                 ///< csr, csc, array, dataframe, categorical, text, dict, scalar, ...
  std::vector<std::int64_t> shape;  ///< rows, columns; entries; empty for a scalar or mapping
  std::string dtype;                ///< numpy name of the values; empty for mappings
  std::int64_t nnz = -1;            ///< stored values of a sparse matrix
  std::int64_t n_categories = -1;
  std::int64_t stored_bytes = 0;  ///< in the file, compressed
};

/// Of HDF5, a Zarr store, or a folder with matrix.mtx (one element, from its header): every element in the order of the
/// file's names, parents first. Throws IoError (no such file, damaged), FormatError (something else). Memory: the list.
SCW_API std::vector<FileEntry> inspect(const std::string& path);

}  // namespace scw::io
