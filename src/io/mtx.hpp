// Matrix Market coordinate files of genes x cells, parsed on all threads into cells x genes.
//
// Kind: reader. Determinism tier A: neither the result nor the error depends on blocks or threads.
//
// The text is cut into blocks anywhere. Each becomes genes and values in file order with the places where a cell
// begins (sorted by cell in the block if the file is not); lines across a cut are put together afterwards. Then the
// entries of every cell are counted, and copied to their places by ranges of cells.
//
// Memory besides the result (12 bytes per entry and 8 per cell with double, 8 with float): the same again until it is
// in its place, block by block, with 12 bytes per run of one cell (in a file sorted by cell: per cell); 8 bytes per
// cell; per thread one block. Never more than 10 times the text, whatever the header says.
// Floor: the text through one core's cache at 1 GB/s per thread, or zlib's 0.3 GB/s of one thread with gzip.
// Format: https://math.nist.gov/MatrixMarket/formats.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "io/text_source.hpp"
#include "scwarp/core/array.hpp"
#include "scwarp/core/context.hpp"
#include "scwarp/io/matrix_stream.hpp"

namespace scw::io {

/// Float if every value that is over 2^24 is exact in float, else double. Entries of a cell are sorted by gene.
///
/// Errors name the file and the line: FormatError (header, a number that is none, a line with more than its numbers,
/// another number of entries than the header says, a line over 1 MiB), ShapeMismatch (other sizes than `genes` and
/// `cells`), DataError (a gene or a cell out of range, a gene twice in a cell), IoError.
SCW_API AnyMatrix read_mtx(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells,
                           std::size_t block_bytes = std::size_t{1} << 20);

/// The same values, indices and offsets as a stream, with the same errors, which come now and not when it is used. The
/// entries lie in a temporary file (temporary_file.hpp): 8 bytes each, 12 with double.
///
/// A file that is sorted by cell is parsed once: blocks are written as they are parsed, cells that lie in several are
/// sorted afterwards. Any other is parsed again, with the cell of every entry into a second file (4 bytes more each),
/// which is gone when this returns; ranges of cells are then put together one after another from all blocks.
/// (A cell with more entries than there are genes is wrong; read_mtx then says how.)
///
/// Memory: 8 bytes per cell; per thread one block and 20 times its lines; one cell per thread; for files that are not
/// sorted by cell `range_entries`, or one per gene, and 8 bytes per cell more; less than a kilobyte per block of text,
/// that is 0.1 % of the text.
SCW_API std::shared_ptr<const MatrixStream> stream_mtx(const Context& ctx, const TextSource& source, std::int64_t genes,
                                                       std::int64_t cells,
                                                       std::size_t block_bytes = std::size_t{1} << 20,
                                                       std::int64_t range_entries = std::int64_t{1} << 22);

}  // namespace scw::io
