#include "scwarp/io/tenx.hpp"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "core/parallel.hpp"
#include "io/hdf5.hpp"
#include "io/lines.hpp"
#include "io/mtx.hpp"
#include "io/streams.hpp"

namespace scw::io {
namespace {

constexpr const char* kH5 = "read_10x_h5";
constexpr const char* kMtx = "read_10x_mtx";
constexpr std::int64_t kGrain = 256;
constexpr const char* kGeneExpression = "Gene Expression";

/// Features as columns of text by name, in file order.
struct Features {
  std::vector<std::string> names;
  std::vector<std::pair<std::string, std::vector<std::string>>> columns;
  std::vector<std::pair<std::string, Bools>> flags;

  const std::vector<std::string>* find(std::string_view name) const {
    for (const auto& [key, values] : columns)
      if (key == name) return &values;
    return nullptr;
  }
};

AnnData assemble(MatrixElement x, std::vector<std::string> barcodes, Features features) {
  AnnData a;
  a.obs = DataFrame(std::move(barcodes));
  a.var = DataFrame(std::move(features.names));
  for (auto& [name, values] : features.columns) {
    // Few distinct texts: categories, as anndata would store them.
    const std::set<std::string_view> distinct(values.begin(), values.end());
    const bool repeats = distinct.size() < values.size() / 2;
    a.var.set(name, repeats ? Column(Categorical::from_labels(values)) : Column(std::move(values)));
  }
  for (auto& [name, values] : features.flags) a.var.set(name, Column(std::move(values)));
  a.set_X(std::move(x));
  return a;
}

/// Drops the features whose column differs from `wanted`; nothing to do if all match.
void keep_features(const Context& ctx, const char* op, AnnData& a, const char* column, const std::string& wanted) {
  const Column* c = a.var.find(column);
  if (c == nullptr) return;
  const auto values = c->to_strings();
  std::vector<std::uint8_t> keep(values.size());
  for (std::size_t j = 0; j < values.size(); ++j) keep[j] = values[j] == wanted ? 1 : 0;
  if (std::find(keep.begin(), keep.end(), 0) == keep.end()) return;
  if (a.X->stream == nullptr) return a.subset_var(ctx, {keep.data(), static_cast<std::int64_t>(keep.size())});
  StackedPart part{a.X->stream, {}};
  std::int32_t n = 0;
  for (const std::uint8_t k : keep) part.columns.push_back(k != 0 ? n++ : -1);
  a.X = MatrixElement(stack_rows(ctx, op, {std::move(part)}, n, 0));
  a.var = a.var.subset(ctx, {keep.data(), static_cast<std::int64_t>(keep.size())});
}

// ---------------------------------------------------------------------------------------------------------------- HDF5

std::vector<std::int64_t> read_shape(const Context& ctx, const h5::Node& group) {
  const auto d = h5::dataset(h5::child(group, "shape"));
  if (d.dims.size() != 1 || d.count != 2) d.fail("has {} entries (expected 2: features, cells)", d.count);
  std::vector<std::int64_t> shape(2);
  if (!h5::read_numbers(ctx, d, shape.data()) || shape[0] < 0 || shape[1] < 0 || shape[0] > INT32_MAX ||
      shape[1] > INT32_MAX)
    d.fail("is {} x {} (expected sizes from 0 to 2^31 - 1)", shape[0], shape[1]);
  return shape;
}

h5::Dataset vector_of(const h5::Node& group, const char* name, std::int64_t expected) {
  auto d = h5::dataset(h5::child(group, name));
  if (d.dims.size() != 1) d.fail("has {} dimensions (expected 1)", d.dims.size());
  if (d.count != expected) d.fail("has {} entries (expected {})", d.count, expected);
  return d;
}

Bools bools(const Context& ctx, const h5::Dataset& d) {
  Bools out;
  out.values.resize(static_cast<std::size_t>(d.count));
  h5::read_numbers(ctx, d, out.values.data());
  for (auto& v : out.values) v = v != 0 ? 1 : 0;
  return out;
}

std::vector<std::string> texts(const Context& ctx, const h5::Node& group, const char* name, std::int64_t expected) {
  return h5::read_strings(ctx, vector_of(group, name, expected));
}

/// Checks every index, and sorts the features of a cell where the file has not.
template <class V>
void sort_rows(const Context& ctx, const h5::Dataset& indices, Csr<V>& x) {
  parallel_for(ctx, x.n_rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::pair<std::int32_t, V>> row;
    for (std::int64_t i = begin; i < end; ++i) {
      bool sorted = true;
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p) {
        if (x.indices[p] < 0 || x.indices[p] >= x.n_cols)
          indices.fail<DataError>("index {} at position {} (cell {}) is out of range (expected 0 to {})", x.indices[p],
                                  p, i, x.n_cols - 1);
        sorted = sorted && (p == x.indptr[i] || x.indices[p - 1] < x.indices[p]);
      }
      if (sorted) continue;
      row.clear();
      for (std::int64_t p = x.indptr[i]; p < x.indptr[i + 1]; ++p) row.emplace_back(x.indices[p], x.values[p]);
      std::sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (std::size_t k = 0; k < row.size(); ++k) {
        if (k > 0 && row[k].first == row[k - 1].first)
          indices.fail<DataError>("duplicate index {} in cell {}", row[k].first, i);
        std::tie(x.indices[x.indptr[i] + static_cast<std::int64_t>(k)],
                 x.values[x.indptr[i] + static_cast<std::int64_t>(k)]) = row[k];
      }
    }
  });
}

bool fits_float(const Context& ctx, const Array<double>& values) {
  std::atomic<bool> fits{true};
  parallel_for(ctx, values.size(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    bool ok = true;
    for (std::int64_t i = begin; i < end; ++i) {
      const double v = values[i];
      ok &= static_cast<double>(static_cast<float>(v)) == v || v != v;
    }
    if (!ok) fits = false;
  });
  return fits;
}

/// The file's matrix is features x cells by column, which is cells x features by row.
MatrixElement read_matrix(const Context& ctx, const std::shared_ptr<const Source>& source, const h5::Node& group,
                          const std::vector<std::int64_t>& shape, bool stream) {
  if (stream) {
    const auto top = static_cast<const Store&>(*source).root();
    const auto array = [&](const char* name) { return top->child(group.path.substr(1) + "/" + name)->array(); };
    if (auto m = stored_sparse(ctx, source, StoredLayout::csr, shape[1], shape[0], array("indptr"), array("indices"),
                               array("data")))
      return MatrixElement(std::move(m));
  }
  const auto offsets = vector_of(group, "indptr", shape[1] + 1);
  Array<std::int64_t> indptr(ctx.memory, offsets.count, "indptr");
  if (!h5::read_numbers(ctx, offsets, indptr.data())) offsets.fail("holds values out of range");
  if (indptr[0] != 0) offsets.fail("starts at {} (expected 0)", indptr[0]);
  for (std::int64_t i = 0; i < shape[1]; ++i)
    if (indptr[i] > indptr[i + 1])
      offsets.fail("falls from {} to {} at position {} (expected rising)", indptr[i], indptr[i + 1], i + 1);
  const std::int64_t nnz = indptr[shape[1]];
  const auto index_set = vector_of(group, "indices", nnz);
  const auto value_set = vector_of(group, "data", nnz);
  if (value_set.type.kind != h5::Kind::integer && value_set.type.kind != h5::Kind::floating)
    value_set.fail("is of type {} (expected numbers)", value_set.type.name);
  Array<std::int32_t> indices(ctx.memory, nnz, "indices");
  if (!h5::read_numbers(ctx, index_set, indices.data())) index_set.fail("holds values out of range for 32 bits");
  const auto finish = [&]<class V>(Array<V> values) -> MatrixElement {
    Csr<V> x;
    x.n_rows = shape[1];
    x.n_cols = static_cast<std::int32_t>(shape[0]);
    x.indptr = std::move(indptr);
    x.indices = std::move(indices);
    x.values = std::move(values);
    sort_rows(ctx, index_set, x);
    return x;
  };
  if (value_set.type.kind == h5::Kind::floating && value_set.type.size > sizeof(float)) {
    Array<double> wide(ctx.memory, nnz, "values");
    static_cast<void>(h5::read_numbers(ctx, value_set, wide.data()));
    if (!fits_float(ctx, wide)) return finish(std::move(wide));
  }
  Array<float> narrow(ctx.memory, nnz, "values");
  if (h5::read_numbers(ctx, value_set, narrow.data())) return finish(std::move(narrow));
  ctx.info(fmt::format("{}: '{}': counts over 2^24: read as double", kH5, value_set.source->name()));
  Array<double> wide(ctx.memory, nnz, "values");
  if (!h5::read_numbers(ctx, value_set, wide.data())) value_set.fail("holds values that a double cannot");
  return finish(std::move(wide));
}

AnnData read_v3(const Context& ctx, const std::shared_ptr<const Source>& source, const h5::Node& matrix,
                const Read10xH5Options& options) {
  const auto shape = read_shape(ctx, matrix);
  const auto group = h5::child(matrix, "features");
  Features features;
  features.names = texts(ctx, group, "name", shape[0]);
  // In a matrix of probes the ids are those of the probes.
  const bool probes = h5::find(group, "gene_id").has_value();
  features.columns.emplace_back("gene_ids", texts(ctx, group, probes ? "gene_id" : "id", shape[0]));
  if (probes) features.columns.emplace_back("probe_ids", texts(ctx, group, "id", shape[0]));
  features.columns.emplace_back("feature_types", texts(ctx, group, "feature_type", shape[0]));
  for (const auto& link : h5::links(group)) {
    static const std::set<std::string> taken{"name", "id", "gene_id", "feature_type", "_all_tag_keys"};
    if (!link.hard || taken.contains(link.name)) continue;
    auto node = h5::child(group, link.name);
    if (node.is_group) continue;
    const auto d = h5::dataset(std::move(node));
    if (d.dims.size() != 1 || d.count != shape[0]) continue;
    if (d.type.kind == h5::Kind::string)
      features.columns.emplace_back(link.name, h5::read_strings(ctx, d));
    else if (d.type.kind == h5::Kind::boolean)
      features.flags.emplace_back(link.name, bools(ctx, d));
  }
  if (!options.genome.empty()) {
    const auto* genomes = features.find("genome");
    const std::set<std::string> known =
        genomes == nullptr ? std::set<std::string>() : std::set<std::string>(genomes->begin(), genomes->end());
    SCW_EXPECT(known.contains(options.genome), kH5, "'{}' has no genome '{}' (it has: {})", matrix.source->name(),
               options.genome, fmt::join(known, ", "));
  }
  auto barcodes = texts(ctx, matrix, "barcodes", shape[1]);
  AnnData a = assemble(read_matrix(ctx, source, matrix, shape, options.stream_matrices), std::move(barcodes),
                       std::move(features));
  if (auto node = h5::find(matrix, "filtered_barcodes"); node && !node->is_group) {
    const auto d = vector_of(matrix, "filtered_barcodes", shape[1]);
    if (d.type.kind == h5::Kind::boolean) a.obs.set("filtered_barcodes", Column(bools(ctx, d)));
  }
  if (!options.genome.empty()) keep_features(ctx, kH5, a, "genome", options.genome);
  if (options.gex_only) keep_features(ctx, kH5, a, "feature_types", kGeneExpression);
  return a;
}

AnnData read_v2(const Context& ctx, const std::shared_ptr<const Source>& source, const h5::Node& root,
                const Read10xH5Options& options) {
  if (h5::find(root, "obs") && h5::find(root, "var")) root.fail("holds AnnData, not 10x Genomics HDF5: use read_h5ad");
  std::vector<std::string> genomes;
  for (const auto& link : h5::links(root))
    if (link.hard && h5::child(root, link.name).is_group) genomes.push_back(link.name);
  if (genomes.empty()) root.fail("has neither '/matrix' nor a group per genome (not 10x Genomics HDF5)");
  std::string genome = options.genome;
  if (genome.empty()) {
    SCW_EXPECT(genomes.size() == 1, kH5, "'{}' holds several genomes: choose one with the option genome (it has: {})",
               root.source->name(), fmt::join(genomes, ", "));
    genome = genomes[0];
  }
  SCW_EXPECT(std::find(genomes.begin(), genomes.end(), genome) != genomes.end(), kH5,
             "'{}' has no genome '{}' (it has: {})", root.source->name(), genome, fmt::join(genomes, ", "));
  const auto group = h5::child(root, genome);
  const auto shape = read_shape(ctx, group);
  Features features;
  features.names = texts(ctx, group, "gene_names", shape[0]);
  features.columns.emplace_back("gene_ids", texts(ctx, group, "genes", shape[0]));
  auto barcodes = texts(ctx, group, "barcodes", shape[1]);
  return assemble(read_matrix(ctx, source, group, shape, options.stream_matrices), std::move(barcodes),
                  std::move(features));
}

AnnData read_10x(const Context& ctx, const std::shared_ptr<const Source>& source, const Read10xH5Options& options) {
  if (!options.obs_mask.empty() || !options.var_mask.empty()) {
    SCW_EXPECT(!options.stream_matrices, kH5, "obs_mask and var_mask do not go with stream_matrices");
    Read10xH5Options all = options;
    all.obs_mask = all.var_mask = {};
    all.stream_matrices = true;
    AnnData a = read_10x(ctx, source, all);
    std::optional<MatrixElement> x;
    if (a.X->stream != nullptr) {
      x = load_rows(ctx, kH5, *a.X->stream, options.obs_mask, options.var_mask);
      a.X.reset();
    }
    if (!options.obs_mask.empty()) a.subset_obs(ctx, options.obs_mask);
    if (!options.var_mask.empty()) a.subset_var(ctx, options.var_mask);
    if (x) a.set_X(std::move(*x));
    return a;
  }
  const auto root = h5::root(*source);
  if (auto matrix = h5::find(root, "matrix"); matrix && matrix->is_group) return read_v3(ctx, source, *matrix, options);
  return read_v2(ctx, source, root, options);
}

// ---------------------------------------------------------------------------------------------------------------
// folder

std::vector<std::string_view> split_tabs(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const std::size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

std::vector<std::string> read_barcodes(Lines lines) {
  std::vector<std::string> names;
  while (const auto line = lines.next()) names.emplace_back(split_tabs(*line)[0]);
  return names;
}

Features read_features(Lines lines, const Read10xMtxOptions& options) {
  std::vector<std::string> ids, symbols, types;
  while (const auto line = lines.next()) {
    const auto fields = split_tabs(*line);
    if (fields.size() < 2) lines.fail("has {} fields (expected id, symbol and, in version 3, type)", fields.size());
    ids.emplace_back(fields[0]);
    symbols.emplace_back(fields[1]);
    if (fields.size() > 2) types.emplace_back(fields[2]);
  }
  if (!types.empty() && types.size() != ids.size()) lines.fail("some lines have a feature type and some have none");
  Features features;
  if (options.gene_symbols) {
    features.names = std::move(symbols);
    make_names_unique(features.names);
    features.columns.emplace_back("gene_ids", std::move(ids));
  } else {
    features.names = std::move(ids);
    features.columns.emplace_back("gene_symbols", std::move(symbols));
  }
  if (!types.empty()) features.columns.emplace_back("feature_types", std::move(types));
  return features;
}

/// folder/prefix+name, or the same with .gz.
std::optional<std::string> find_file(const std::string& folder, const std::string& name) {
  for (const char* suffix : {"", ".gz"}) {
    const auto path = std::filesystem::path(folder) / (name + suffix);
    std::error_code ec;
    if (std::filesystem::is_regular_file(path, ec)) return path.string();
  }
  return std::nullopt;
}

std::string require_file(const std::string& folder, const std::string& name) {
  const auto path = find_file(folder, name);
  SCW_EXPECT_AS(IoError, path.has_value(), kMtx, "'{}' has no {} or {}.gz", folder, name, name);
  return *path;
}

AnnData assemble_mtx(const Context& ctx, const TextSource& matrix, const TextSource& barcodes,
                     const TextSource& features_lines, const Read10xMtxOptions& options) {
  auto names = read_barcodes(barcodes.lines(ctx));
  auto features = read_features(features_lines.lines(ctx), options);
  const auto n_genes = static_cast<std::int64_t>(features.names.size());
  const auto n_cells = static_cast<std::int64_t>(names.size());
  MatrixElement x = options.stream_matrices ? MatrixElement(stream_mtx(ctx, matrix, n_genes, n_cells))
                                            : MatrixElement(read_mtx(ctx, matrix, n_genes, n_cells));
  AnnData a = assemble(std::move(x), std::move(names), std::move(features));
  if (options.gex_only) keep_features(ctx, kMtx, a, "feature_types", kGeneExpression);
  return a;
}

}  // namespace

void make_names_unique(std::vector<std::string>& names) {
  std::unordered_map<std::string, int> used;
  std::unordered_set<std::string> taken(names.begin(), names.end());
  std::unordered_set<std::string> seen;
  for (auto& name : names) {
    if (seen.insert(name).second) continue;
    std::string candidate;
    do {
      candidate = name + "-" + std::to_string(++used[name]);
    } while (taken.contains(candidate));
    taken.insert(candidate);
    name = std::move(candidate);
  }
}

AnnData read_10x_h5(const Context& ctx, const std::string& path, const Read10xH5Options& options) {
  const h5::Session session;
  return read_10x(ctx, Source::open(kH5, path), options);
}

AnnData read_10x_h5(const Context& ctx, Span<const std::byte> image, const std::string& name,
                    const Read10xH5Options& options) {
  const h5::Session session;
  return read_10x(ctx, Source::open_image(kH5, image, name), options);
}

AnnData read_10x_mtx(const Context& ctx, const std::string& folder, const Read10xMtxOptions& options) {
  const auto matrix = require_file(folder, options.prefix + "matrix.mtx");
  const auto barcodes = require_file(folder, options.prefix + "barcodes.tsv");
  const auto v2 = find_file(folder, options.prefix + "genes.tsv");
  const auto features = v2 ? *v2 : require_file(folder, options.prefix + "features.tsv");
  return assemble_mtx(ctx, {kMtx, matrix}, {kMtx, barcodes}, {kMtx, features}, options);
}

AnnData read_10x_mtx(const Context& ctx, std::string_view matrix, std::string_view barcodes, std::string_view features,
                     const Read10xMtxOptions& options) {
  return assemble_mtx(ctx, {kMtx, matrix, "matrix.mtx"}, {kMtx, barcodes, "barcodes.tsv"},
                      {kMtx, features, "features.tsv"}, options);
}

}  // namespace scw::io
