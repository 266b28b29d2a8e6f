// Data frames under each other, and picked by rows: pandas.concat and reindex for the columns that files hold.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scwarp/anndata.hpp"

namespace scw::io {

/// One column from several, null where an input does not have it; nothing for columns that cannot be put together.
/// Integers with missing rows become float64, booleans nullable, categories a union (in order if all are the same, else
/// sorted), and texts with missing rows categories.
std::optional<Column> concat_columns(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows);
/// Rows of a column, -1: missing.
std::optional<Column> take(const Column& c, const std::vector<std::int64_t>& rows);
/// The same values, missing where the other is.
bool same_column(const Column& a, const Column& b);

}  // namespace scw::io
