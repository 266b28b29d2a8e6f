// Kind: reader. Determinism tier A.
#pragma once

#include <string>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/io/text.hpp"

namespace scw::io {

struct ReadOptions {
  std::string genome;                                ///< 10x HDF5: this genome only (a warning elsewhere)
  bool gex_only = true;                              ///< 10x files: features of type "Gene Expression" only
  Orientation orientation = Orientation::automatic;  ///< tables (a warning elsewhere)
  /// h5ad, 10x HDF5 and Zarr: leave the values of matrices in the file; see ReadH5adOptions. 10x folders: put them into
  /// a temporary one; see Read10xMtxOptions.
  bool stream_matrices = false;
};

/// Reads h5ad, Zarr, 10x HDF5, a 10x folder, or a CSV/TSV table, told apart by content, not by name. Everything is on
/// the host. Throws IoError (no such file, unreadable), FormatError (none of these, or damaged; path, element or line,
/// expected and found). Memory: the result, and what the reader of the format says.
SCW_API AnnData read(const Context& ctx, const std::string& path, const ReadOptions& options = {});

}  // namespace scw::io
