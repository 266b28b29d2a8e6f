// Data frames under each other, and picked by rows: pandas.concat and reindex for the columns that files hold.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scwarp/anndata.hpp"

namespace scw::io {

/// One column from several, null where an input does not have it; nothing for columns that cannot be put together.
/// Numbers, plain, nullable or of categories, take a common type, where booleans count as 0 and 1; integers with
/// missing rows become float64 unless one is nullable, booleans nullable. Categories of one kind become a union: in the
/// first input's order if it has all, else in natural order ("g2" before "g10"; beyond ASCII by code point). Texts with
/// missing rows become categories. `mixed`: texts met something else, and all of it became texts.
std::optional<Column> concat_columns(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows,
                                     bool& mixed);
/// Rows of a column, -1: missing.
std::optional<Column> take(const Column& c, const std::vector<std::int64_t>& rows);
/// The same values of the same type (and of the same categories), missing where the other is.
bool same_column(const Column& a, const Column& b);

}  // namespace scw::io
