// Kind: reader. Determinism tier A.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "scwarp/anndata.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

enum class Orientation : std::uint8_t { automatic, rows_are_cells, rows_are_genes };

struct ReadTextOptions {
  /// 0: tab, comma or semicolon, whichever the first line has (tab first).
  char delimiter = 0;
  /// automatic: the axis with more names like MT-ND1, mt-Nd1 or ENSG00000198888 is the genes; without any, rows are
  /// cells. The choice is logged.
  Orientation orientation = Orientation::automatic;
};

/// A table of numbers with names in the first row and the first column (the corner may be missing), plain or gzip, LF
/// or CRLF. Sparse if at least half of it is zero. Errors name file, line and column: IoError, FormatError (not a
/// number, wrong number of fields, no data). Memory: the values once more while reading.
SCW_API AnnData read_text(const Context& ctx, const std::string& path, const ReadTextOptions& options = {});

/// The same for text in memory; `name` is for messages.
SCW_API AnnData read_text(const Context& ctx, std::string_view text, const std::string& name,
                          const ReadTextOptions& options = {});

}  // namespace scw::io
