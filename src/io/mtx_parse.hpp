// The text of a Matrix Market coordinate file as entries, parsed in blocks on all threads. See mtx.hpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/text_source.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"

namespace scw::io {

struct MtxHeader {
  std::int64_t genes = 0, cells = 0, nnz = 0;
  bool pattern = false;
  std::int64_t lines = 0, bytes = 0;  // up to the entries
};

struct MtxLineError {
  bool is_data;  // DataError, else FormatError
  std::string text;
};

/// Entries of one cell that follow each other in a block.
struct MtxRun {
  std::int32_t cell, first, count;
};

template <class V>
struct MtxBlock {
  std::int64_t lines = 0;  // ends of lines
  std::string head, tail;  // before the first and behind the last end of a line; without any: all is head
  std::int32_t n = 0;
  Array<std::int32_t> genes;
  Array<V> values;
  std::vector<MtxRun> runs;  // by cell, in the end
  bool by_cell = true;       // they were already
  std::optional<MtxLineError> error;
  std::int64_t error_line = 0;  // ends of lines before it, in this block
  std::int64_t not_placed = 0;  // for who takes its entries: where it stands, or how many are left
};

template <class V>
using MtxBlocks = std::vector<std::unique_ptr<MtxBlock<V>>>;

/// Throws what read_mtx throws for it.
MtxHeader read_mtx_header(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells);

/// All entries in blocks, in file order; nothing if V is float and does not do, or if `parsed` returned false. That is
/// called for every block that has entries and no error, on the thread that parsed it, and may take them away; when it
/// returns false, parsing stops.
template <class V>
std::optional<MtxBlocks<V>> parse_mtx(const Context& ctx, const TextSource& source, const MtxHeader& header,
                                      std::size_t block_bytes, const std::function<bool(MtxBlock<V>&)>& parsed);

/// Sorts entries by gene; the first gene that is there twice, or -1.
template <class V>
std::int32_t sort_cell(std::int32_t* genes, V* values, std::int64_t n, std::vector<std::pair<std::int32_t, V>>& row);

/// DataError: `gene` (from 0) is twice in `cell`.
[[noreturn]] void fail_twice(const TextSource& source, std::int64_t cell, std::int32_t gene);

}  // namespace scw::io
