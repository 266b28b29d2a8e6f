// What the writers of 10x files share: X as ranges, the names of the genes, and what is left out.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/streams.hpp"
#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

/// X as a stream over what the caller holds.
Stream stream_over(const MatrixElement& x);

/// The offsets of a sparse matrix. DataError if they do not rise from 0 to nnz.
std::vector<std::int64_t> offsets_of(const char* op, const MatrixStream& m);

/// A column as text, missing values empty; nothing if it is not there.
std::optional<std::vector<std::string>> texts_of(const DataFrame& frame, const char* name);

struct FeatureNames {
  std::vector<std::string> ids, symbols, types;
};
/// var's gene_ids (else its names), gene_symbols (else its names; where there are symbols the names are the ids), and
/// feature_types (else "Gene Expression").
FeatureNames feature_names(const DataFrame& var);

using IsKept = std::function<bool(const std::string& name, const Column& column)>;
/// Tells what `place` ("a 10x folder") will not have. The columns that it will have are told by the functions, besides
/// those of feature_names.
void warn_of_rest(const Context& ctx, const char* op, const char* place, const AnnData& a, const IsKept& obs_kept = {},
                  const IsKept& var_kept = {});

}  // namespace scw::io
