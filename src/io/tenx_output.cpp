#include "io/tenx_output.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/check.hpp"

namespace scw::io {

Stream stream_over(const MatrixElement& x) {
  if (x.stream != nullptr) return x.stream;
  auto m = std::make_shared<MatrixStream>();
  m->n_rows = x.n_rows();
  m->n_cols = x.n_cols();
  const auto range = []<class T>(const T* data, std::int64_t width) -> FillRange {
    return [data, width](std::int64_t first, std::int64_t n, std::byte* out) {
      if (n > 0) std::memcpy(out, data + first * width, static_cast<std::size_t>(n * width) * sizeof(T));
    };
  };
  std::visit(
      [&]<class M>(const M& v) {
        m->dtype = std::is_same_v<M, Csr<float>> || std::is_same_v<M, Matrix<float>> ? "float32" : "float64";
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>) {
          m->nnz = v.values.size();
          m->values = range(v.values.data(), 1);
          m->indices = range(v.indices.data(), 1);
          m->indptr = range(v.indptr.data(), 1);
        } else {
          m->layout = StoredLayout::dense;
          m->values = range(v.data.data(), v.n_cols);
        }
      },
      x.data);
  return m;
}

std::vector<std::int64_t> offsets_of(const char* op, const MatrixStream& m) {
  const std::int64_t n_major = m.layout == StoredLayout::csc ? m.n_cols : m.n_rows;
  std::vector<std::int64_t> indptr(static_cast<std::size_t>(n_major + 1));
  m.indptr(0, n_major + 1, reinterpret_cast<std::byte*>(indptr.data()));
  SCW_EXPECT_AS(DataError,
                indptr.front() == 0 && indptr.back() == m.nnz && std::is_sorted(indptr.begin(), indptr.end()), op,
                "X is not a consistent sparse matrix (its row offsets do not rise from 0 to {})", m.nnz);
  return indptr;
}

std::optional<std::vector<std::string>> texts_of(const DataFrame& frame, const char* name) {
  const Column* c = frame.find(name);
  if (c == nullptr || std::holds_alternative<Foreign>(c->data)) return std::nullopt;
  return c->to_strings("");
}

FeatureNames feature_names(const DataFrame& var) {
  const std::vector<std::string>& names = var.index();
  auto symbols = texts_of(var, "gene_symbols"), ids = texts_of(var, "gene_ids"), types = texts_of(var, "feature_types");
  FeatureNames out;
  out.ids = ids && !symbols ? std::move(*ids) : names;
  out.symbols = symbols ? std::move(*symbols) : names;
  out.types = types ? std::move(*types) : std::vector<std::string>(names.size(), "Gene Expression");
  return out;
}

void warn_of_rest(const Context& ctx, const char* op, const char* place, const AnnData& a, const IsKept& obs_kept,
                  const IsKept& var_kept) {
  std::vector<std::string> rest;
  const auto look = [&](const char* slot, const auto& all) {
    for (const auto& [name, e] : all) rest.push_back(fmt::format("{}['{}']", slot, name));
  };
  for (const auto& [name, c] : a.obs.columns())
    if (!obs_kept || !obs_kept(name, c)) rest.push_back(fmt::format("obs['{}']", name));
  for (const auto& [name, c] : a.var.columns())
    if (name != "gene_ids" && name != "gene_symbols" && name != "feature_types" && (!var_kept || !var_kept(name, c)))
      rest.push_back(fmt::format("var['{}']", name));
  look("layers", a.layers);
  look("obsm", a.obsm);
  look("varm", a.varm);
  look("obsp", a.obsp);
  look("varp", a.varp);
  if (a.raw) rest.emplace_back("raw");
  if (const Dict* uns = a.uns.dict(); uns != nullptr) look("uns", *uns);
  if (!rest.empty())
    ctx.warn(fmt::format("{}: left out, because {} has no place for it: {}", op, place, fmt::join(rest, ", ")));
}

}  // namespace scw::io
