// Kind: reader and writer. Determinism tier A: the same content gives the same bytes, for any number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scwarp/core/context.hpp"
#include "scwarp/io/read.hpp"
#include "scwarp/io/write.hpp"

namespace scw::io {

enum class Join : std::uint8_t { inner, outer };
/// What becomes of elements that are not aligned with the cells, as in anndata: `same`: those that all inputs have with
/// the same content; `unique`: those for which there is only one content; `first`: the first input's that has it;
/// `only`: those of one input alone.
enum class Merge : std::uint8_t { none, same, unique, first, only };

struct ConcatOptions {
  Join join = Join::inner;                  ///< of the genes, and of the columns of obs, the layers and obsm
  std::string label;                        ///< column of obs that says where a cell is from; empty: none
  std::vector<std::string> keys;            ///< names of the inputs in it; empty: "0", "1", ...
  std::optional<std::string> index_unique;  ///< put between a cell's name and its input's key; unset: names stay
  Merge merge = Merge::none;                ///< of the columns of var
  Merge uns_merge = Merge::none;            ///< of uns
  /// For what an input does not have, with an outer join. Unset: 0 in sparse matrices, NaN in others. Sparse matrices
  /// take no other value; dense ones get a type that holds it (integers wider ones or double).
  std::optional<double> fill_value;
  ReadOptions read;  ///< 10x files and tables: what of them
  WriteOptions write;
  bool overwrite = false;
};

/// The cells of all inputs, one input after another, in one h5ad file or Zarr store, as anndata.concat puts them
/// together: X and layers with the genes in common (in the first input's order) or of all (sorted, unless all are the
/// same), obs, obsm, raw if all inputs have it, columns of var and uns as `merge` and `uns_merge` say. obsp, varp and
/// varm are left out. Values take the type that numpy gives to the types of the inputs together; columns of obs that of
/// pandas, but nullable floats, which files do not have, become floats with NaN, and numbers beside text become text,
/// with a warning. Names of indexes stay if all inputs have the same. What of uns scwarp does not decode (sparse
/// matrices) is left out, with a warning.
///
/// Matrices go from files to file in pieces; CSC matrices are read whole, one input's at a time while they are asked
/// for. Memory: obs, var, 8 to 16 bytes per cell, and some chunks per thread. Throws what reading and writing throw;
/// DataError for genes that are not unique where they must be matched, InvalidArgument for options; NotSupported for
/// matrices that are dense in one input and sparse in another.
SCW_API void concat(const Context& ctx, const std::vector<std::string>& inputs, const std::string& out,
                    const ConcatOptions& options = {});

}  // namespace scw::io
