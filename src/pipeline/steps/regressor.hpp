// What regress_out takes from obs, for the step and for the PCA of its residuals.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "scwarp/anndata.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::pipeline {

/// The columns of obs that regress_out takes: one of categories, or numbers [cells x k].
struct Regressor {
  std::optional<Categorical> categories;
  std::vector<double> keys;
  std::int64_t n_keys = 0;
  MatrixView<const double> view() const {
    return {keys.data(), n_keys == 0 ? 0 : static_cast<std::int64_t>(keys.size()) / n_keys, n_keys};
  }
};

/// The named columns; throws unless they are numbers, or one of categories.
Regressor regressor_of(const AnnData& data, const std::vector<std::string>& names);

/// [columns x rows] on the host.
Matrix<double> transposed(const Context& ctx, const Matrix<double>& m);

}  // namespace scw::pipeline
