#include "scwarp/io/text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "io/lines.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "read_csv";  // as users know it
constexpr std::size_t kMostFields = std::size_t{1} << 26;

char find_delimiter(std::string_view line) {
  for (const char c : {'\t', ',', ';'})
    if (line.find(c) != std::string_view::npos) return c;
  return '\t';
}

/// Fields of a line, without quotes around them (a quoted field may hold the delimiter; "" is a quote inside).
void split(const Lines& lines, std::string_view line, char delimiter, std::vector<std::string>& fields) {
  fields.clear();
  std::size_t p = 0;
  for (;;) {
    std::string field;
    if (p < line.size() && line[p] == '"') {
      for (++p; p < line.size(); ++p) {
        if (line[p] != '"') {
          field += line[p];
        } else if (p + 1 < line.size() && line[p + 1] == '"') {
          field += line[p++];
        } else {
          ++p;
          break;
        }
      }
    }
    const std::size_t end = std::min(line.find(delimiter, p), line.size());
    field += line.substr(p, end - p);
    fields.push_back(std::move(field));
    // Packed, a line of nothing but delimiters is a thousand times shorter; its fields are thirty times longer.
    if (fields.size() > kMostFields) lines.fail("has over {} fields", kMostFields);
    if (end == line.size()) return;
    p = end + 1;
  }
}

/// Names that only genes have: mitochondrial symbols and Ensembl ids.
std::int64_t count_gene_names(const std::vector<std::string>& names) {
  return std::count_if(names.begin(), names.end(), [](const std::string& n) {
    return n.starts_with("MT-") || n.starts_with("mt-") || n.starts_with("ENSG0") || n.starts_with("ENSMUSG0");
  });
}

struct Table {
  std::vector<std::string> row_names, column_names;
  // Non-zero entries by row.
  std::vector<std::int64_t> indptr{0};
  std::vector<std::int32_t> indices;
  std::vector<double> values;
  bool exact = true;  // every value that is not a fraction is exact in float
};

Table parse(Lines lines, char delimiter) {
  Table t;
  auto line = lines.next();
  if (!line || line->empty()) lines.fail("the table is empty (expected a row of names)");
  // Of a file of its own the format is known before it comes here.
  if (line->starts_with("\x89HDF"))
    lines.fail("this is HDF5 that is packed or comes through a pipe (expected the name of an HDF5 file)");
  if (line->starts_with("%%MatrixMarket"))
    lines.fail("this is the matrix of a 10x folder, not a table: read the folder that it is in (read_10x_mtx)");
  if (line->starts_with("\xEF\xBB\xBF")) line->remove_prefix(3);
  if (delimiter == 0) delimiter = find_delimiter(*line);
  split(lines, *line, delimiter, t.column_names);
  std::vector<std::string> first;
  bool corner_known = false;
  while ((line = lines.next())) {
    if (line->empty()) continue;
    std::size_t end = line->find(delimiter);
    std::string_view rest;
    if (line->starts_with('"')) {  // quoted names are rare: split the whole line once to be right
      split(lines, *line, delimiter, first);
      t.row_names.push_back(first[0]);
      std::size_t close = 1;
      while (close < line->size() && ((*line)[close] != '"' || (close + 1 < line->size() && (*line)[close + 1] == '"')))
        close += (*line)[close] == '"' ? 2 : 1;
      end = line->find(delimiter, std::min(close, line->size()));
    } else {
      t.row_names.emplace_back(line->substr(0, end));
    }
    rest = end == std::string_view::npos ? std::string_view() : line->substr(end + 1);
    std::int64_t column = 0;
    for (bool more = end != std::string_view::npos; more; ++column) {
      const std::size_t stop = rest.find(delimiter);
      std::string_view field = rest.substr(0, stop);
      more = stop != std::string_view::npos;
      if (more) rest.remove_prefix(stop + 1);
      while (field.starts_with(' ')) field.remove_prefix(1);
      while (field.ends_with(' ')) field.remove_suffix(1);
      if (field.size() >= 2 && field.front() == '"' && field.back() == '"') field = field.substr(1, field.size() - 2);
      double value = 0;
      const auto [p, ec] = std::from_chars(field.data(), field.data() + field.size(), value);
      if (ec != std::errc{} || p != field.data() + field.size())
        lines.fail("column {}: expected a number (got '{}')", column + 2, field.substr(0, 40));
      if (value == 0) continue;
      t.exact = t.exact && !(std::abs(value) > 0x1p24 && static_cast<double>(static_cast<float>(value)) != value);
      t.indices.push_back(static_cast<std::int32_t>(column));
      t.values.push_back(value);
    }
    if (!corner_known) {
      // With a corner the header has one name more than there are values.
      if (static_cast<std::int64_t>(t.column_names.size()) == column + 1) t.column_names.erase(t.column_names.begin());
      corner_known = true;
      if (t.column_names.empty()) lines.fail("the table has no columns of numbers");
    }
    if (column != static_cast<std::int64_t>(t.column_names.size()))
      lines.fail("has {} values (expected {}, by the first row)", column, t.column_names.size());
    t.indptr.push_back(static_cast<std::int64_t>(t.values.size()));
  }
  if (t.row_names.empty()) lines.fail("the table has names and no rows");
  if (t.column_names.size() > INT32_MAX || t.row_names.size() > INT32_MAX) lines.fail("has over 2^31 rows or columns");
  return t;
}

/// The same entries by column.
void transpose(Table& t) {
  std::vector<std::int64_t> indptr(t.column_names.size() + 1, 0);
  for (const std::int32_t j : t.indices) ++indptr[static_cast<std::size_t>(j) + 1];
  for (std::size_t j = 0; j + 1 < indptr.size(); ++j) indptr[j + 1] += indptr[j];
  std::vector<std::int32_t> indices(t.indices.size());
  std::vector<double> values(t.values.size());
  auto next = indptr;
  for (std::size_t i = 0; i + 1 < t.indptr.size(); ++i)
    for (auto p = static_cast<std::size_t>(t.indptr[i]); p < static_cast<std::size_t>(t.indptr[i + 1]); ++p) {
      const auto q = static_cast<std::size_t>(next[static_cast<std::size_t>(t.indices[p])]++);
      indices[q] = static_cast<std::int32_t>(i);
      values[q] = t.values[p];
    }
  t.indptr = std::move(indptr);
  t.indices = std::move(indices);
  t.values = std::move(values);
  std::swap(t.row_names, t.column_names);
}

template <class V>
MatrixElement to_matrix(const Context& ctx, const Table& t) {
  const auto rows = static_cast<std::int64_t>(t.row_names.size()),
             cols = static_cast<std::int64_t>(t.column_names.size());
  const auto nnz = static_cast<std::int64_t>(t.values.size());
  if (2 * nnz > rows * cols) {
    Matrix<V> x(ctx.memory, rows, cols, "table");
    std::fill(x.data.begin(), x.data.end(), V{0});
    for (std::int64_t i = 0; i < rows; ++i)
      for (auto p = static_cast<std::size_t>(t.indptr[static_cast<std::size_t>(i)]);
           p < static_cast<std::size_t>(t.indptr[static_cast<std::size_t>(i) + 1]); ++p)
        x.data[i * cols + t.indices[p]] = static_cast<V>(t.values[p]);
    return MatrixElement(std::move(x));
  }
  Csr<V> x;
  x.n_rows = rows;
  x.n_cols = static_cast<std::int32_t>(cols);
  x.indptr = Array<std::int64_t>(ctx.memory, rows + 1, "indptr");
  x.indices = Array<std::int32_t>(ctx.memory, nnz, "indices");
  x.values = Array<V>(ctx.memory, nnz, "values");
  std::copy(t.indptr.begin(), t.indptr.end(), x.indptr.begin());
  std::copy(t.indices.begin(), t.indices.end(), x.indices.begin());
  std::transform(t.values.begin(), t.values.end(), x.values.begin(), [](double v) { return static_cast<V>(v); });
  return MatrixElement(std::move(x));
}

AnnData finish(const Context& ctx, Table t, const std::string& name, Orientation orientation) {
  if (orientation == Orientation::automatic) {
    orientation = count_gene_names(t.row_names) > count_gene_names(t.column_names) ? Orientation::rows_are_genes
                                                                                   : Orientation::rows_are_cells;
    ctx.info(fmt::format("{}: '{}': rows are taken for {}", kOp, name,
                         orientation == Orientation::rows_are_genes ? "genes" : "cells"));
  }
  if (orientation == Orientation::rows_are_genes) transpose(t);
  AnnData a;
  a.obs = DataFrame(t.row_names);
  a.var = DataFrame(t.column_names);
  a.set_X(t.exact ? to_matrix<float>(ctx, t) : to_matrix<double>(ctx, t));
  return a;
}

}  // namespace

AnnData read_text(const Context& ctx, const std::string& path, const ReadTextOptions& options) {
  return finish(ctx, parse(Lines(ctx, kOp, path), options.delimiter), path, options.orientation);
}

AnnData read_text(const Context& ctx, std::string_view text, const std::string& name, const ReadTextOptions& options) {
  return finish(ctx, parse(Lines(ctx, kOp, text, name), options.delimiter), name, options.orientation);
}

}  // namespace scw::io
