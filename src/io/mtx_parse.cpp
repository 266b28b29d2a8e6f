#include "io/mtx_parse.hpp"

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

MtxLineError too_long() { return {false, fmt::format("is longer than {} bytes", kLongestLine)}; }

/// The next number of a line.
template <class T>
std::optional<MtxLineError> number(std::string_view& line, const char* what, T& value) {
  const std::size_t start = line.find_first_not_of(" \t");
  line.remove_prefix(start == std::string_view::npos ? line.size() : start);
  const auto [end, ec] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (ec != std::errc{}) return MtxLineError{false, fmt::format("expected {} (got '{}')", what, line.substr(0, 40))};
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return std::nullopt;
}

std::optional<MtxLineError> line_end(std::string_view line) {
  if (line.find_first_not_of(" \t") == std::string_view::npos) return std::nullopt;
  return MtxLineError{false, fmt::format("expected the end of the line (got '{}')", line.substr(0, 40))};
}

/// What parsing needs to know and what all its threads share.
struct Parse {
  const MtxHeader& header;
  const Context& ctx;
  std::atomic<bool> wide{false};  // a value does not fit float: all this is for nothing
};

struct Entry {
  std::int64_t gene, cell;
  double value;
};

/// Any line without its LF; nothing found if it is blank.
std::optional<MtxLineError> parse_line(const MtxHeader& h, std::string_view line, std::optional<Entry>& out) {
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
    return MtxLineError{true, fmt::format("entry ({}, {}) is out of range (expected up to ({}, {}))", e.gene, e.cell,
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
void sort_runs(std::vector<MtxRun>& runs) {
  constexpr int kBits = 11;
  std::int32_t most = 0;
  for (const MtxRun& r : runs) most = std::max(most, r.cell);
  std::vector<MtxRun> other(runs.size());
  for (int shift = 0; shift < 31 && (most >> shift) > 0; shift += kBits) {
    std::array<std::uint32_t, (1 << kBits) + 1> start{};
    const auto digit = [&](const MtxRun& r) { return at(r.cell >> shift & ((1 << kBits) - 1)); };
    for (const MtxRun& r : runs) ++start[digit(r) + 1];
    for (std::size_t d = 1; d < start.size(); ++d) start[d] += start[d - 1];
    for (const MtxRun& r : runs) other[start[digit(r)]++] = r;
    runs.swap(other);
  }
}

template <class V>
class BlockParser {
 public:
  BlockParser(Parse& parse, MtxBlock<V>& out) : h_(parse.header), parse_(parse), out_(out) {}

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
    out_.by_cell = sorted_;
    if (sorted_ && 2 * static_cast<std::int64_t>(out_.n) >= room) return;
    // Blank lines must not cost memory.
    if (!sorted_) sort_runs(out_.runs);
    Array<std::int32_t> genes(parse_.ctx.workspace, out_.n, "mtx genes");
    Array<V> values(parse_.ctx.workspace, out_.n, "mtx values");
    std::int32_t n = 0;
    std::size_t kept = 0;
    for (const MtxRun& r : out_.runs) {
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

  const MtxHeader& h_;
  Parse& parse_;
  MtxBlock<V>& out_;
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
void parse_block(Parse& parse, std::string_view text, MtxBlock<V>& out) {
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

}  // namespace

MtxHeader read_mtx_header(const Context& ctx, const TextSource& source, std::int64_t genes, std::int64_t cells) {
  Lines lines = source.lines(ctx);
  MtxHeader h;
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

template <class V>
std::optional<MtxBlocks<V>> parse_mtx(const Context& ctx, const TextSource& source, const MtxHeader& header,
                                      std::size_t block_bytes, const std::function<bool(MtxBlock<V>&)>& parsed) {
  Parse parse{header, ctx};
  std::atomic<bool> refused{false};
  const auto hand_over = [&](MtxBlock<V>& block) {
    if (block.n > 0 && !block.error && !parsed(block)) refused.store(true, std::memory_order_relaxed);
  };
  std::mutex mutex;
  std::deque<std::unique_ptr<MtxBlock<V>>> all;
  const auto ends_early =
      source.for_blocks(ctx, header.bytes, block_bytes, [&](std::int64_t number, std::string_view text) {
        auto block = std::make_unique<MtxBlock<V>>();
        parse_block(parse, text, *block);
        if (!parse.wide.load(std::memory_order_relaxed)) hand_over(*block);
        const bool go_on =
            !block->error && !parse.wide.load(std::memory_order_relaxed) && !refused.load(std::memory_order_relaxed);
        const std::lock_guard lock(mutex);
        if (all.size() <= at(number)) all.resize(at(number) + 1);
        all[at(number)] = std::move(block);
        return go_on;
      });
  if (parse.wide || refused) return std::nullopt;

  std::int64_t lines = header.lines;  // before what is looked at
  const auto fail = [&](const MtxLineError& error) {
    const auto text = fmt::format("{}: '{}', line {}: {}", source.op(), source.name(), lines + 1, error.text);
    if (error.is_data) throw DataError(text);
    throw FormatError(text);
  };
  MtxBlocks<V> out;
  std::string across;  // a line from a block's end on
  std::int64_t entries = 0;
  const auto keep = [&](std::unique_ptr<MtxBlock<V>> block) {
    if (block->n == 0) return;
    entries += block->n;
    out.push_back(std::move(block));
  };
  const auto put_together = [&] {
    if (across.size() > kLongestLine) fail(too_long());
    auto block = std::make_unique<MtxBlock<V>>();
    BlockParser<V>(parse, *block).run(across + '\n');
    if (block->error) fail(*block->error);
    hand_over(*block);
    keep(std::move(block));
  };
  for (auto& block : all) {
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
  if (parse.wide || refused) return std::nullopt;
  if (entries != header.nnz)
    throw FormatError(fmt::format("{}: '{}', line {}: the file has {} entries (expected {}, by its header)",
                                  source.op(), source.name(), lines, entries, header.nnz));
  return out;
}

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

void fail_twice(const TextSource& source, std::int64_t cell, std::int32_t gene) {
  throw DataError(
      fmt::format("{}: '{}': gene {} occurs twice in cell {}", source.op(), source.name(), gene + 1, cell + 1));
}

template std::optional<MtxBlocks<float>> parse_mtx(const Context&, const TextSource&, const MtxHeader&, std::size_t,
                                                   const std::function<bool(MtxBlock<float>&)>&);
template std::optional<MtxBlocks<double>> parse_mtx(const Context&, const TextSource&, const MtxHeader&, std::size_t,
                                                    const std::function<bool(MtxBlock<double>&)>&);
template std::int32_t sort_cell(std::int32_t*, float*, std::int64_t, std::vector<std::pair<std::int32_t, float>>&);
template std::int32_t sort_cell(std::int32_t*, double*, std::int64_t, std::vector<std::pair<std::int32_t, double>>&);

}  // namespace scw::io
