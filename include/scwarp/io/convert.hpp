// Kind: reader and writer. Determinism tier A: the same content gives the same bytes, for any number of threads.
#pragma once

#include <string>

#include "scwarp/core/context.hpp"
#include "scwarp/io/read.hpp"
#include "scwarp/io/write.hpp"

namespace scw::io {

struct ConvertOptions {
  ReadOptions read;        ///< 10x files and tables: what of them; stream_matrices is set
  WriteOptions write;      ///< how it is written
  bool overwrite = false;  ///< replace `out`; else it must not be there
  bool csr = false;        ///< X, layers and raw.X that are CSC become CSR, each in memory while it is written
};

/// Writes what is in a file (of any format that `read` reads, told by content) in the format that the name of `out`
/// ends with: .h5ad, .zarr, .h5 for 10x HDF5 or "/" for a 10x folder (both: X and names alone). h5ad and Zarr get
/// everything: CSR, CSC and dense matrices keep layout and type, what scwarp does not decode is copied within a format;
/// from one to the other what the other has no form for is left out with a warning. `csr` turns CSC, which cannot be
/// read by rows. Matrices go from file to file in chunks that ctx.n_threads threads unpack and pack; memory: obs, var,
/// uns, the row offsets and some chunks, whatever the number of values. Those of a 10x folder go through a temporary
/// file (Read10xMtxOptions::stream_matrices); tables of text are read whole, and CSC that becomes 10x HDF5. Throws what
/// reading and writing throw; InvalidArgument for an unknown ending and for a file that is there; IoError for an input
/// that was changed meanwhile.
SCW_API void convert(const Context& ctx, const std::string& in, const std::string& out,
                     const ConvertOptions& options = {});

}  // namespace scw::io
