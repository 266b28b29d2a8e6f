#include "io/mtx.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/parallel.hpp"

namespace scw::io {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kLongestLine = std::size_t{1} << 20;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Header {
  std::int64_t genes = 0, cells = 0, nnz = 0;
  bool pattern = false;
  std::int64_t lines = 0, bytes = 0;  // up to the entries
};

struct LineError {
  bool is_data;  // DataError, else FormatError
  std::string text;
};

LineError too_long() { return {false, fmt::format("is longer than {} bytes", kLongestLine)}; }

/// The next number of a line.
template <class T>
std::optional<LineError> number(std::string_view& line, const char* what, T& value) {
  const std::size_t start = line.find_first_not_of(" \t");
  line.remove_prefix(start == std::string_view::npos ? line.size() : start);
  const auto [end, ec] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (ec != std::errc{}) return LineError{false, fmt::format("expected {} (got '{}')", what, line.substr(0, 40))};
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return std::nullopt;
}

std::optional<LineError> line_end(std::string_view line) {
  if (line.find_first_not_of(" \t") == std::string_view::npos) return std::nullopt;
  return LineError{false, fmt::format("expected the end of the line (got '{}')", line.substr(0, 40))};
}

Header read_header(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells) {
  Lines lines = source.lines(ctx);
  Header h;
  auto line = lines.next();
  if (!line || !line->starts_with("%%MatrixMarket")) lines.fail("is not a Matrix Market header");
  h.pattern = line->find("pattern") != std::string_view::npos;
  if (line->find("coordinate") == std::string_view::npos || line->find("general") == std::string_view::npos ||
      line->find("complex") != std::string_view::npos)
    lines.fail("is '{}' (expected: matrix coordinate integer, real or pattern, general)", line->substr(0, 80));
  do {
    line = lines.next();
  } while (line && (line->empty() || line->starts_with('%')));
  if (!line) lines.fail("the sizes are missing");
  auto rest = *line;
  auto error = number(rest, "the number of rows", h.genes);
  if (!error) error = number(rest, "the number of columns", h.cells);
  if (!error) error = number(rest, "the number of entries", h.nnz);
  if (!error) error = line_end(rest);
  if (error) lines.fail("{}", error->text);
  if (h.genes != genes || h.cells != cells)
    lines.fail<ShapeMismatch>("the matrix is {} x {} (expected {} features x {} barcodes)", h.genes, h.cells, genes,
                              cells);
  if (genes > INT32_MAX || cells > INT32_MAX || h.nnz < 0)
    lines.fail("the sizes {} x {} with {} entries are out of range (expected 0 to 2^31 - 1)", genes, cells, h.nnz);
  h.lines = lines.line();
  h.bytes = lines.offset();
  return h;
}

/// Entries of one cell that follow each other in a block.
struct Run {
  std::int32_t cell, first, count;
};

template <class V>
struct Block {
  std::int64_t lines = 0;  // ends of lines
  std::string head, tail;  // before the first and behind the last end of a line; without any: all is head
  std::int32_t n = 0;
  Array<std::int32_t> genes;
  Array<V> values;
  std::vector<Run> runs;  // by cell, in the end
  std::optional<LineError> error;
  std::int64_t error_line = 0;  // ends of lines before it, in this block
  std::int64_t not_placed = 0;
};

/// What parsing needs to know and what all its threads share.
struct Parse {
  Header header;
  const Context& ctx;
  std::atomic<bool> wide{false};  // a value does not fit float: all this is for nothing
};

struct Entry {
  std::int64_t gene, cell;
  double value;
};

/// Any line without its LF; nothing found if it is blank.
std::optional<LineError> parse_line(const Header& h, std::string_view line, std::optional<Entry>& out) {
  if (line.size() > kLongestLine) return too_long();
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.find_first_not_of(" \t") == std::string_view::npos) return std::nullopt;
  Entry e{0, 0, 1.0};
  if (auto error = number(line, "a row number", e.gene)) return error;
  if (auto error = number(line, "a column number", e.cell)) return error;
  if (!h.pattern)
    if (auto error = number(line, "a value", e.value)) return error;
  if (auto error = line_end(line)) return error;
  if (e.gene < 1 || e.gene > h.genes || e.cell < 1 || e.cell > h.cells)
    return LineError{true, fmt::format("entry ({}, {}) is out of range (expected up to ({}, {}))", e.gene, e.cell,
                                       h.genes, h.cells)};
  out = e;
  return std::nullopt;
}

std::uint64_t load(const char* p) {
  std::uint64_t word = 0;
  std::memcpy(&word, p, sizeof word);
  return word;
}

/// The number of digits that a word of text begins with, and their value: 0 for none and for 8, after which more may
/// follow.
struct Digits {
  int n;
  std::uint32_t value;
};
[[gnu::always_inline]] inline Digits digits_of(std::uint64_t word) {
  constexpr std::uint64_t kSevenBits = 0x7f7f7f7f7f7f7f7f, kOverNine = 0x7676767676767676;
  std::uint64_t v = word ^ 0x3030303030303030;
  const std::uint64_t others = (((v & kSevenBits) + kOverNine) | v) & ~kSevenBits;
  if (others == 0) return {8, 0};
  const int n = std::countr_zero(others) / 8;
  if (n == 0) return {0, 0};
  v <<= 64 - 8 * n;
  // Pairs, then fours, then eight digits at a time, all in one word.
  v = v * 10 + (v >> 8);
  constexpr std::uint64_t kMask = 0x000000ff000000ff;
  v = ((v & kMask) * (100 + (std::uint64_t{1000000} << 32)) +
       ((v >> 16) & kMask) * (1 + (std::uint64_t{10000} << 32))) >>
      32;
  return {n, static_cast<std::uint32_t>(v)};
}

/// Sorts runs by cell, those of a cell in their order, by 11 bits at a time.
void sort_runs(std::vector<Run>& runs) {
  constexpr int kBits = 11;
  std::int32_t most = 0;
  for (const Run& r : runs) most = std::max(most, r.cell);
  std::vector<Run> other(runs.size());
  for (int shift = 0; shift < 31 && (most >> shift) > 0; shift += kBits) {
    std::array<std::uint32_t, (1 << kBits) + 1> start{};
    const auto digit = [&](const Run& r) { return at(r.cell >> shift & ((1 << kBits) - 1)); };
    for (const Run& r : runs) ++start[digit(r) + 1];
    for (std::size_t d = 1; d < start.size(); ++d) start[d] += start[d - 1];
    for (const Run& r : runs) other[start[digit(r)]++] = r;
    runs.swap(other);
  }
}

template <class V>
class BlockParser {
 public:
  BlockParser(Parse& parse, Block<V>& out) : h_(parse.header), parse_(parse), out_(out) {}

  /// A text that ends with the end of a line.
  void run(std::string_view text) {
    const auto room = std::count(text.begin(), text.end(), '\n');
    out_.genes = Array<std::int32_t>(parse_.ctx.workspace, room, "mtx genes");
    out_.values = Array<V>(parse_.ctx.workspace, room, "mtx values");
    genes_ = out_.genes.data();
    values_ = out_.values.data();
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
      // A fast step looks at 25 bytes at most.
      if (!h_.pattern)
        while (end - p >= 32 && step(p)) {
        }
      if (p == end) break;
      const auto* stop = static_cast<const char*>(std::memchr(p, '\n', static_cast<std::size_t>(end - p)));
      if (!line({p, static_cast<std::size_t>(stop - p)})) {
        out_.error_line += std::count(text.data(), p, '\n');
        return;
      }
      p = stop + 1;
    }
    finish(room);
  }

 private:
  /// "GENE CELL VALUE\n" with numbers of up to seven digits, in range; false, and nothing done, for anything else.
  [[gnu::always_inline]] bool step(const char*& p) {
    const Digits gene = digits_of(load(p));
    if (p[gene.n] != ' ' || gene.value - 1 >= static_cast<std::uint64_t>(h_.genes)) return false;
    const char* q = p + gene.n + 1;
    const std::uint64_t word = load(q);
    std::uint32_t cell = cell_;
    if ((word & cell_mask_) == cell_text_) {
      q += cell_bytes_;
    } else {
      const Digits d = digits_of(word);
      if (q[d.n] != ' ' || d.value - 1 >= static_cast<std::uint64_t>(h_.cells)) return false;
      q += d.n + 1;
      cell = d.value;
      cell_ = cell;
      cell_bytes_ = d.n + 1;
      cell_mask_ = ~std::uint64_t{0} >> (64 - 8 * cell_bytes_);
      cell_text_ = word & cell_mask_;
    }
    Digits value{1, static_cast<std::uint32_t>(q[0] - '0')};
    if (value.value > 9 || q[1] != '\n') value = digits_of(load(q));
    if (value.n == 0 || value.n == 8) return false;
    q += value.n;
    if (*q == '\r') ++q;
    if (*q != '\n') return false;
    p = q + 1;
    add(static_cast<std::int32_t>(gene.value - 1), static_cast<std::int32_t>(cell - 1), static_cast<V>(value.value));
    return true;
  }

  bool line(std::string_view text) {
    std::optional<Entry> e;
    if (auto error = parse_line(h_, text, e)) {
      out_.error = std::move(error);
      return false;
    }
    if (!e) return true;
    if (std::is_same_v<V, float> && std::abs(e->value) > 0x1p24 &&
        static_cast<double>(static_cast<float>(e->value)) != e->value)
      parse_.wide.store(true, std::memory_order_relaxed);
    add(static_cast<std::int32_t>(e->gene - 1), static_cast<std::int32_t>(e->cell - 1), static_cast<V>(e->value));
    return true;
  }

  [[gnu::always_inline]] void add(std::int32_t gene, std::int32_t cell, V value) {
    if (cell != run_cell_) {
      close_run();
      sorted_ = sorted_ && cell > run_cell_;
      run_cell_ = cell;
      run_first_ = out_.n;
    }
    genes_[out_.n] = gene;
    values_[out_.n] = value;
    ++out_.n;
  }
  void close_run() {
    if (out_.n > run_first_) out_.runs.push_back({run_cell_, run_first_, out_.n - run_first_});
  }

  void finish(std::int64_t room) {
    close_run();
    if (sorted_ && 2 * static_cast<std::int64_t>(out_.n) >= room) return;
    // Blank lines must not cost memory.
    if (!sorted_) sort_runs(out_.runs);
    Array<std::int32_t> genes(parse_.ctx.workspace, out_.n, "mtx genes");
    Array<V> values(parse_.ctx.workspace, out_.n, "mtx values");
    std::int32_t n = 0;
    std::size_t kept = 0;
    for (const Run& r : out_.runs) {
      std::copy_n(genes_ + r.first, r.count, genes.data() + n);
      std::copy_n(values_ + r.first, r.count, values.data() + n);
      if (kept > 0 && out_.runs[kept - 1].cell == r.cell)
        out_.runs[kept - 1].count += r.count;
      else
        out_.runs[kept++] = {r.cell, n, r.count};
      n += r.count;
    }
    out_.runs.resize(kept);
    out_.genes = std::move(genes);
    out_.values = std::move(values);
  }

  const Header& h_;
  Parse& parse_;
  Block<V>& out_;
  std::int32_t* genes_ = nullptr;
  V* values_ = nullptr;
  // The text of the last cell's number: most lines have the same again.
  std::uint64_t cell_text_ = 1, cell_mask_ = 0;
  int cell_bytes_ = 0;
  std::uint32_t cell_ = 0;
  std::int32_t run_cell_ = -1, run_first_ = 0;
  bool sorted_ = true;
};

template <class V>
void parse_block(Parse& parse, std::string_view text, Block<V>& out) {
  const std::size_t first = text.find('\n');
  if (first == std::string_view::npos) {
    if (text.size() > kLongestLine)
      out.error = too_long();
    else
      out.head = text;
    return;
  }
  const std::size_t last = text.rfind('\n');
  out.head = text.substr(0, first);
  out.tail = text.substr(last + 1);
  out.lines = 1;
  if (last == first) return;
  text = text.substr(first + 1, last - first);
  out.error_line = 1;
  BlockParser<V>(parse, out).run(text);
  out.lines += static_cast<std::int64_t>(std::count(text.begin(), text.end(), '\n'));
}

template <class V>
using Blocks = std::deque<std::unique_ptr<Block<V>>>;

/// All entries in blocks, in file order; nothing if V is float and does not do.
template <class V>
std::optional<std::vector<std::unique_ptr<Block<V>>>> parse_entries(const Context& ctx, const TextSource& source,
                                                                    const Header& header, std::size_t block_bytes) {
  Parse parse{header, ctx};
  std::mutex mutex;
  Blocks<V> parsed;
  const auto ends_early =
      source.for_blocks(ctx, header.bytes, block_bytes, [&](std::int64_t number, std::string_view text) {
        auto block = std::make_unique<Block<V>>();
        parse_block(parse, text, *block);
        const bool go_on = !block->error && !parse.wide.load(std::memory_order_relaxed);
        const std::lock_guard lock(mutex);
        if (parsed.size() <= at(number)) parsed.resize(at(number) + 1);
        parsed[at(number)] = std::move(block);
        return go_on;
      });
  if (parse.wide) return std::nullopt;

  std::int64_t lines = header.lines;  // before what is looked at
  const auto fail = [&](const LineError& error) {
    const auto text = fmt::format("{}: '{}', line {}: {}", source.op(), source.name(), lines + 1, error.text);
    if (error.is_data) throw DataError(text);
    throw FormatError(text);
  };
  std::vector<std::unique_ptr<Block<V>>> out;
  std::string across;  // a line from a block's end on
  std::int64_t entries = 0;
  const auto keep = [&](std::unique_ptr<Block<V>> block) {
    if (block->n == 0) return;
    entries += block->n;
    block->not_placed = block->n;
    out.push_back(std::move(block));
  };
  const auto put_together = [&] {
    if (across.size() > kLongestLine) fail(too_long());
    auto block = std::make_unique<Block<V>>();
    BlockParser<V>(parse, *block).run(across + '\n');
    if (block->error) fail(*block->error);
    keep(std::move(block));
  };
  for (auto& block : parsed) {
    if (!block) break;  // the text ends here, though others know what stands behind it
    if (block->lines == 0) {
      if (block->error) fail(*block->error);
      across += block->head;
      continue;
    }
    across += block->head;
    put_together();
    if (block->error) {
      lines += block->error_line;
      fail(*block->error);
    }
    lines += block->lines;
    across = std::move(block->tail);
    keep(std::move(block));
  }
  if (ends_early) {
    throw IoError(
        fmt::format("{}: '{}', line {}: cannot be read on: {}", source.op(), source.name(), lines + 1, *ends_early));
  }
  if (!across.empty()) {
    put_together();
    ++lines;
  }
  if (parse.wide) return std::nullopt;
  if (entries != header.nnz)
    throw FormatError(fmt::format("{}: '{}', line {}: the file has {} entries (expected {}, by its header)",
                                  source.op(), source.name(), lines, entries, header.nnz));
  return out;
}

/// f(block, run) for the runs of cells [first, last), in file order.
template <class V, class F>
void visit_runs(const std::vector<std::unique_ptr<Block<V>>>& blocks, std::int64_t first, std::int64_t last, F&& f) {
  for (const auto& block : blocks) {
    const auto& runs = block->runs;
    // What is in its place already is of other cells.
    if (runs.empty() || runs.front().cell >= last || runs.back().cell < first) continue;
    for (auto r = std::lower_bound(runs.begin(), runs.end(), first,
                                   [](const Run& run, std::int64_t cell) { return run.cell < cell; });
         r != runs.end() && r->cell < last; ++r)
      f(*block, *r);
  }
}

/// Sorts entries by gene; the first gene that is there twice, or -1.
template <class V>
std::int32_t sort_cell(std::int32_t* genes, V* values, std::int64_t n, std::vector<std::pair<std::int32_t, V>>& row) {
  if (std::is_sorted(genes, genes + n, std::less_equal<>())) return -1;
  if (std::is_sorted(genes, genes + n, std::greater_equal<>())) {  // Cell Ranger before version 3
    std::reverse(genes, genes + n);
    std::reverse(values, values + n);
    return -1;
  }
  row.clear();
  for (std::int64_t p = 0; p < n; ++p) row.emplace_back(genes[p], values[p]);
  std::sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (std::int64_t p = 0; p < n; ++p) {
    std::tie(genes[p], values[p]) = row[at(p)];
    if (p > 0 && genes[p] == genes[p - 1]) return genes[p];
  }
  return -1;
}

template <class V>
Csr<V> to_csr(const Context& ctx, const TextSource& source, const Header& h,
              std::vector<std::unique_ptr<Block<V>>> blocks) {
  Csr<V> x;
  x.n_rows = h.cells;
  x.n_cols = static_cast<std::int32_t>(h.genes);
  x.indptr = Array<std::int64_t>(ctx.memory, h.cells + 1, "indptr");
  x.indptr[0] = 0;
  constexpr std::int64_t kCells = 16384, kEntries = 1 << 18;
  parallel_for(ctx, h.cells, kCells, [&](std::int64_t first, std::int64_t last) {
    std::fill(x.indptr.data() + first + 1, x.indptr.data() + last + 1, 0);
    visit_runs(blocks, first, last, [&](const Block<V>&, const Run& r) { x.indptr[r.cell + 1] += r.count; });
  });
  for (std::int64_t i = 0; i < h.cells; ++i) x.indptr[i + 1] += x.indptr[i];
  SCW_ASSERT(x.indptr[h.cells] == h.nnz);

  x.indices = Array<std::int32_t>(ctx.memory, h.nnz, "indices");
  x.values = Array<V>(ctx.memory, h.nnz, "values");
  Array<std::int64_t> next(ctx.workspace, h.cells, "mtx cursor");
  std::copy_n(x.indptr.data(), h.cells, next.data());
  const std::int64_t parts = std::clamp<std::int64_t>(h.nnz / kEntries, 1, 4096);
  const auto begin_of = [&](std::int64_t part) {
    const auto* p = std::lower_bound(x.indptr.begin(), x.indptr.end(), h.nnz / parts * part);
    return part == 0 ? 0 : part == parts ? h.cells : std::min<std::int64_t>(h.cells, p - x.indptr.begin());
  };
  std::vector<std::pair<std::int64_t, std::int32_t>> twice(at(parts), {-1, 0});  // cell, gene
  parallel_for(ctx, parts, 1, [&](std::int64_t part, std::int64_t) {
    const std::int64_t first = begin_of(part), last = begin_of(part + 1);
    visit_runs(blocks, first, last, [&](Block<V>& block, const Run& r) {
      const std::int64_t to = next[r.cell];
      next[r.cell] += r.count;
      std::copy_n(block.genes.data() + r.first, r.count, x.indices.data() + to);
      std::copy_n(block.values.data() + r.first, r.count, x.values.data() + to);
      if (std::atomic_ref(block.not_placed).fetch_sub(r.count, std::memory_order_acq_rel) != r.count) return;
      block.genes = {};
      block.values = {};
    });
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t p = x.indptr[i];
      const std::int32_t gene = sort_cell(x.indices.data() + p, x.values.data() + p, x.indptr[i + 1] - p, row);
      if (gene < 0) continue;
      twice[at(part)] = {i, gene};
      return;
    }
  });
  for (const auto& [cell, gene] : twice)
    if (cell >= 0)
      throw DataError(
          fmt::format("{}: '{}': gene {} occurs twice in cell {}", source.op(), source.name(), gene + 1, cell + 1));
  return x;
}

}  // namespace

AnyMatrix read_mtx(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells,
                   std::size_t block_bytes) {
  const Header header = read_header(ctx, source, genes, cells);
  if (auto blocks = parse_entries<float>(ctx, source, header, block_bytes))
    return to_csr<float>(ctx, source, header, *std::move(blocks));
  ctx.info(fmt::format("{}: '{}': values over 2^24: read as double", source.op(), source.name()));
  auto blocks = parse_entries<double>(ctx, source, header, block_bytes);
  SCW_ASSERT(blocks.has_value());
  return to_csr<double>(ctx, source, header, *std::move(blocks));
}

}  // namespace scw::io
