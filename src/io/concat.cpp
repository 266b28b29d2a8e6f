#include "scwarp/io/concat.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <unordered_map>

#include "core/check.hpp"
#include "io/anndata_codec.hpp"
#include "io/concat_frames.hpp"
#include "io/output.hpp"
#include "io/streams.hpp"

namespace scw::io {
namespace {

constexpr const char* kOp = "concat";
using Names = std::vector<std::string>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// What the inputs' elements of one name are put together from.
struct Inputs {
  const Context& ctx;
  const std::vector<std::string>& paths;
  std::vector<AnnData> data;
  std::vector<std::int64_t> n_obs;
  const ConcatOptions& options;

  std::size_t size() const { return data.size(); }
  bool outer() const { return options.join == Join::outer; }
};

// ------------------------------------------------------------------------------------------------------------- genes

/// Names in common, in the first one's order; or of all, sorted from the first difference on, as pandas does it.
Names join_names(const std::vector<const Names*>& all, bool outer) {
  Names out = *all[0];
  for (std::size_t k = 1; k < all.size(); ++k) {
    const Names& more = *all[k];
    if (out == more) continue;
    if (outer) {
      if (more.empty()) continue;
      if (out.empty()) {
        out = more;
        continue;
      }
      out.insert(out.end(), more.begin(), more.end());
      std::sort(out.begin(), out.end());
      out.erase(std::unique(out.begin(), out.end()), out.end());
    } else {
      const std::set<std::string_view> there(more.begin(), more.end());
      std::erase_if(out, [&](const std::string& name) { return !there.contains(name); });
    }
  }
  return out;
}

/// Place of each name of `from` in `to`, -1: not there. Empty if they are the same. DataError if they must be matched
/// and are not unique.
std::vector<std::int32_t> places(const std::string& path, const Names& from, const Names& to) {
  if (from == to) return {};
  std::unordered_map<std::string_view, std::int32_t> place;
  for (std::size_t i = 0; i < to.size(); ++i) place.emplace(to[i], static_cast<std::int32_t>(i));
  std::vector<std::int32_t> out;
  std::set<std::string_view> seen;
  for (const auto& name : from) {
    SCW_EXPECT_AS(DataError, seen.insert(name).second, kOp,
                  "'{}': gene '{}' is there twice (names must be unique to be matched with the other inputs')", path,
                  name);
    const auto it = place.find(name);
    out.push_back(it == place.end() ? -1 : it->second);
  }
  return out;
}

// ----------------------------------------------------------------------------------------------------------- matrices

/// Rows that an input does not have.
Stream absent(StoredLayout layout, std::int64_t n_rows, std::int64_t n_cols, double missing, bool given) {
  auto m = std::make_shared<MatrixStream>();
  m->layout = layout;
  m->n_rows = n_rows;
  m->n_cols = n_cols;
  m->dtype = "float64";  // as anndata: what is missing is made of doubles, or of 64-bit integers if `given` as one
  if (layout == StoredLayout::dense) {
    if (given && with_fill("int64", missing) == "int64") {
      m->dtype = "int64";
      m->values = [n_cols, missing](std::int64_t, std::int64_t n, std::byte* out) {
        std::fill_n(reinterpret_cast<std::int64_t*>(out), n * n_cols, static_cast<std::int64_t>(missing));
      };
    } else {
      m->values = [n_cols, missing](std::int64_t, std::int64_t n, std::byte* out) {
        std::fill_n(reinterpret_cast<double*>(out), n * n_cols, missing);
      };
    }
  } else {
    m->indptr = [](std::int64_t, std::int64_t n, std::byte* out) { std::memset(out, 0, at(n) * sizeof(std::int64_t)); };
    m->values = m->indices = [](std::int64_t, std::int64_t, std::byte*) {};
  }
  return m;
}

/// The matrix of an input, by rows. `name` is its place in the file.
Stream by_rows(const Inputs& in, std::size_t k, const MatrixElement& element, const std::string& name) {
  if (element.stream == nullptr) {
    Stream s = memory_stream(element.clone(in.ctx));
    return element.stored_dtype.empty() ? s : cast(std::move(s), element.stored_dtype);
  }
  if (element.stream->layout != StoredLayout::csc) return element.stream;
  in.ctx.info(fmt::format("{}: '{}', object '/{}' is stored by genes; it is read whole", kOp, in.paths[k], name));
  MatrixElement whole = read_anndata_matrix(in.ctx, open_store(kOp, in.paths[k]), name, {});
  return cast(memory_stream(std::move(whole)), element.stream->dtype);
}

/// `elements`: one per input, null where there is none. `columns`: places, one per input; n_cols of the result.
MatrixElement stack(const Inputs& in, const std::vector<const MatrixElement*>& elements, const std::string& name,
                    const std::vector<std::vector<std::int32_t>>& columns, std::int64_t n_cols) {
  std::vector<StackedPart> parts(in.size());
  std::optional<StoredLayout> layout;
  std::size_t first = 0;
  for (std::size_t k = 0; k < in.size(); ++k) {
    if (elements[k] == nullptr) continue;
    parts[k] = {by_rows(in, k, *elements[k], name), columns[k]};
    if (!layout) first = k;
    if (!layout) layout = parts[k].matrix->layout;
    SCW_EXPECT_AS(NotSupported, *layout == parts[k].matrix->layout, kOp,
                  "'{}' is {} in '{}' and {} in '{}' (write one of them anew in the other's form)", name,
                  *layout == StoredLayout::dense ? "dense" : "sparse", in.paths[first],
                  *layout == StoredLayout::dense ? "sparse" : "dense", in.paths[k]);
  }
  const bool dense = *layout == StoredLayout::dense;
  const double missing = in.options.fill_value.value_or(dense ? std::nan("") : 0);
  SCW_EXPECT_AS(NotSupported, dense || missing == 0 || !in.outer(), kOp,
                "fill_value {} for '{}', which is sparse (expected 0)", missing, name);
  for (std::size_t k = 0; k < in.size(); ++k)
    if (elements[k] == nullptr)
      parts[k] = {absent(*layout, in.n_obs[k], n_cols, missing, in.options.fill_value.has_value()), {}};
  return MatrixElement(stack_rows(in.ctx, kOp, std::move(parts), n_cols, missing));
}

// ------------------------------------------------------------------------------------------------------------- frames

/// Keys that all have, in the first one's order; or all keys in order of appearance.
template <class Keys>
Names join_keys(const std::vector<Keys>& all, bool outer) {
  Names out;
  std::set<std::string> seen;
  for (const auto& keys : all)
    for (const auto& key : keys) {
      if (!seen.insert(key).second) continue;
      const auto has = [&](const Keys& other) { return std::find(other.begin(), other.end(), key) != other.end(); };
      if (outer || std::all_of(all.begin(), all.end(), has)) out.push_back(key);
    }
  return out;
}

Names column_names(const DataFrame& f) {
  Names out;
  for (const auto& [name, column] : f.columns()) out.push_back(name);
  return out;
}

void stack_columns(const Inputs& in, const std::vector<const DataFrame*>& frames, const std::string& what,
                   DataFrame& out) {
  std::vector<Names> names;
  for (const auto* f : frames) names.push_back(f == nullptr ? Names() : column_names(*f));
  for (const auto& name : join_keys(names, in.outer())) {
    std::vector<const Column*> columns;
    for (const auto* f : frames) columns.push_back(f == nullptr ? nullptr : f->find(name));
    bool mixed = false;
    if (auto c = concat_columns(columns, in.n_obs, mixed)) {
      out.set(name, std::move(*c));
      if (mixed)
        in.ctx.warn(
            fmt::format("{}: column '{}' of {} becomes text: it holds numbers or booleans in some inputs and "
                        "text in others",
                        kOp, name, what));
    } else {
      in.ctx.warn(fmt::format("{}: column '{}' of {} is left out: its values cannot be put together", kOp, name, what));
    }
  }
}

/// The name that all indexes have; empty if they differ.
std::string index_name(const std::vector<const DataFrame*>& frames) {
  const auto& name = frames.front()->index_name;
  return std::all_of(frames.begin(), frames.end(), [&](const auto* f) { return f->index_name == name; })
             ? name
             : std::string();
}

DataFrame stack_obs(const Inputs& in) {
  const auto& o = in.options;
  Names index, keys = o.keys;
  for (std::size_t k = keys.size(); k < in.size(); ++k) keys.push_back(std::to_string(k));
  Categorical from;
  for (std::size_t k = 0; k < in.size(); ++k) {
    for (const auto& name : in.data[k].obs.index())
      index.push_back(o.index_unique ? name + *o.index_unique + keys[k] : name);
    from.codes.insert(from.codes.end(), at(in.n_obs[k]), static_cast<std::int32_t>(k));
  }
  from.categories = keys;
  std::vector<const DataFrame*> frames;
  for (const auto& a : in.data) frames.push_back(&a.obs);
  DataFrame out(std::move(index), index_name(frames));
  stack_columns(in, frames, "obs", out);
  if (!o.label.empty()) out.set(o.label, Column(std::move(from)));
  return out;
}

// ------------------------------------------------------------------------------------------------------------ merging

/// Which of the values under one key is kept; null: none.
template <class T, class Same>
const T* choose(Merge how, const std::vector<const T*>& values, Same&& same) {
  const T* first = nullptr;
  int n = 0;
  bool all_same = true;
  for (const T* v : values) {
    if (v == nullptr) continue;
    if (first == nullptr) first = v;
    all_same = all_same && same(*first, *v);
    ++n;
  }
  switch (how) {
    case Merge::same:
      return n == static_cast<int>(values.size()) && all_same ? first : nullptr;
    case Merge::unique:
      return all_same ? first : nullptr;
    case Merge::first:
      return first;
    case Merge::only:
      return n == 1 ? first : nullptr;
    default:
      return nullptr;
  }
}

DataFrame merge_var(const Inputs& in, const std::vector<const DataFrame*>& vars, Names genes) {
  DataFrame out(std::move(genes), index_name(vars));
  if (in.options.merge == Merge::none) return out;
  std::vector<std::map<std::string, Column>> frames;
  std::vector<Names> names;
  for (const auto* f : vars) {
    std::unordered_map<std::string_view, std::int64_t> place;
    for (std::size_t i = 0; i < f->index().size(); ++i) place.emplace(f->index()[i], static_cast<std::int64_t>(i));
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < out.index().size(); ++i) {
      const auto it = place.find(out.index()[i]);
      rows.push_back(f->index() == out.index() ? static_cast<std::int64_t>(i) : it == place.end() ? -1 : it->second);
    }
    std::map<std::string, Column> taken;
    for (const auto& [name, column] : f->columns()) {
      if (auto c = take(column, rows))
        taken.emplace(name, std::move(*c));
      else
        in.ctx.warn(fmt::format("{}: column '{}' of var is left out: its rows cannot be picked", kOp, name));
    }
    names.push_back(column_names(*f));
    frames.push_back(std::move(taken));
  }
  for (const auto& name : join_keys(names, in.options.merge != Merge::same)) {
    std::vector<const Column*> columns;
    for (const auto& f : frames) {
      const auto it = f.find(name);
      columns.push_back(it == f.end() ? nullptr : &it->second);
    }
    if (const Column* c = choose(in.options.merge, columns, &same_column)) {
      Column copy = *c;
      out.set(name, std::move(copy));
    }
  }
  return out;
}

bool same_frame(const DataFrame& a, const DataFrame& b) {
  return a.index() == b.index() && column_names(a) == column_names(b) &&
         std::equal(a.columns().begin(), a.columns().end(), b.columns().begin(),
                    [](const auto& x, const auto& y) { return same_column(x.second, y.second); });
}

bool same_value(const Value& a, const Value& b) {
  const auto number = [](const Value& v) -> std::optional<double> {
    if (const auto* i = v.get<std::int64_t>()) return static_cast<double>(*i);
    if (const auto* d = v.get<double>()) return *d;
    return std::nullopt;
  };
  // Integers are compared as such: doubles cannot tell those above 2^53 apart.
  if (number(a) && number(b) && a.data().index() != b.data().index()) return *number(a) == *number(b);
  if (a.data().index() != b.data().index()) return false;
  return std::visit(
      [&]<class T>(const T& x) {
        const T& y = std::get<T>(b.data());
        if constexpr (std::is_same_v<T, std::monostate>) {
          return true;
        } else if constexpr (requires {
                               x.shape;
                               x.values;
                             }) {
          return x.shape == y.shape &&
                 std::equal(x.values.begin(), x.values.end(), y.values.begin(), y.values.end(),
                            [](const auto& p, const auto& q) { return p == q || (p != p && q != q); });
        } else if constexpr (std::is_same_v<T, StructArray>) {
          return x.n_rows == y.n_rows && x.fields == y.fields;
        } else if constexpr (std::is_same_v<T, Categorical>) {
          return same_column(Column(x), Column(y));
        } else if constexpr (std::is_same_v<T, DataFrame>) {
          return same_frame(x, y);
        } else if constexpr (std::is_same_v<T, Foreign> || std::is_same_v<T, std::shared_ptr<Dict>>) {
          return false;  // content unknown; mappings are compared entry by entry
        } else {
          return x == y;
        }
      },
      a.data());
}

/// A copy without what only its own file can give.
std::optional<Value> detached(const Inputs& in, const Value& v, const std::string& path) {
  if (v.get<Foreign>() != nullptr) {
    in.ctx.warn(
        fmt::format("{}: '{}' ({}) is left out: scwarp does not know its encoding", kOp, path, v.get<Foreign>()->what));
    return std::nullopt;
  }
  if (const Dict* d = v.dict()) {
    Dict out;
    for (const auto& [key, child] : *d)
      if (auto c = detached(in, child, path + "/" + key)) out.emplace(key, std::move(*c));
    return Value(std::move(out));
  }
  Value out = v;
  out.set_stored_path("");
  return out;
}

/// The first value that scwarp does not decode; null if there is none.
const Foreign* find_foreign(const std::vector<const Value*>& values) {
  for (const auto* v : values)
    if (v != nullptr && v->get<Foreign>() != nullptr) return v->get<Foreign>();
  return nullptr;
}

Dict merge_uns(const Inputs& in, const std::vector<const Dict*>& all, const std::string& path) {
  std::vector<Names> names(all.size());
  for (std::size_t k = 0; k < all.size(); ++k)
    if (all[k] != nullptr)
      for (const auto& [key, v] : *all[k]) names[k].push_back(key);
  Dict out;
  for (const auto& key : join_keys(names, in.options.uns_merge != Merge::same)) {
    std::vector<const Value*> values;
    std::vector<const Dict*> dicts;
    bool nested = true;
    for (const auto* d : all) {
      const auto it = d == nullptr ? Dict::const_iterator() : d->find(key);
      const Value* v = d == nullptr || it == d->end() ? nullptr : &it->second;
      values.push_back(v);
      dicts.push_back(v == nullptr ? nullptr : v->dict());
      nested = nested && (v == nullptr || v->dict() != nullptr);
    }
    if (nested) {
      if (Dict inner = merge_uns(in, dicts, path + "/" + key); !inner.empty()) out.emplace(key, std::move(inner));
    } else if (const Value* v = choose(in.options.uns_merge, values, &same_value)) {
      if (auto copy = detached(in, *v, path + "/" + key)) out.emplace(key, std::move(*copy));
    } else if (const auto* unknown = find_foreign(values);
               unknown != nullptr &&
               (in.options.uns_merge == Merge::unique ||
                (in.options.uns_merge == Merge::same && !std::count(values.begin(), values.end(), nullptr)))) {
      in.ctx.warn(fmt::format("{}: '{}/{}' ({}) is left out: scwarp cannot tell whether it is the same in the inputs",
                              kOp, path, key, unknown->what));
    }
  }
  return out;
}

// ------------------------------------------------------------------------------------------------------------- AnnData

/// Genes in common or of all, and where each input's go.
struct Genes {
  Names names;
  std::vector<std::vector<std::int32_t>> columns;
};
Genes join_genes(const Inputs& in, const std::vector<const DataFrame*>& vars) {
  std::vector<const Names*> all;
  for (const auto* v : vars) all.push_back(&v->index());
  Genes g;
  g.names = join_names(all, in.outer());
  for (std::size_t k = 0; k < all.size(); ++k) g.columns.push_back(places(in.paths[k], *all[k], g.names));
  return g;
}

void stack_axis(const Inputs& in, const char* slot, const std::vector<const AxisElements*>& all, const Genes* genes,
                const DataFrame& obs, AxisElements& out) {
  std::vector<Names> names;
  for (const auto* elements : all) {
    names.emplace_back();
    for (const auto& [key, e] : *elements) names.back().push_back(key);
  }
  for (const auto& key : join_keys(names, in.outer())) {
    const std::string name = fmt::format("{}/{}", slot, key);
    std::vector<const MatrixElement*> matrices;
    std::vector<const DataFrame*> frames;
    bool all_matrices = true, all_frames = true;
    std::int64_t fewest = INT64_MAX, most = 0;
    for (const auto* elements : all) {
      const auto it = elements->find(key);
      const AxisElement* e = it == elements->end() ? nullptr : &it->second;
      matrices.push_back(e == nullptr ? nullptr : std::get_if<MatrixElement>(e));
      frames.push_back(e == nullptr ? nullptr : std::get_if<DataFrame>(e));
      all_matrices = all_matrices && (e == nullptr || matrices.back() != nullptr);
      all_frames = all_frames && (e == nullptr || frames.back() != nullptr);
      if (matrices.back() != nullptr) {
        fewest = std::min(fewest, matrices.back()->n_cols());
        most = std::max(most, matrices.back()->n_cols());
      }
    }
    if (all_frames && genes == nullptr) {
      DataFrame f(obs.index(), obs.index_name);
      stack_columns(in, frames, name, f);
      out.insert_or_assign(key, std::move(f));
    } else if (!all_matrices) {
      in.ctx.warn(fmt::format("{}: '{}' is left out: it is no matrix in every input", kOp, name));
    } else if (genes != nullptr) {
      out.insert_or_assign(key,
                           stack(in, matrices, name, genes->columns, static_cast<std::int64_t>(genes->names.size())));
    } else {
      // Without names, columns are matched by place.
      const std::int64_t width = in.outer() ? most : fewest;
      std::vector<std::vector<std::int32_t>> columns(in.size());
      for (std::size_t k = 0; k < in.size(); ++k)
        if (matrices[k] != nullptr && matrices[k]->n_cols() != width)
          for (std::int32_t j = 0; j < matrices[k]->n_cols(); ++j) columns[k].push_back(j < width ? j : -1);
      out.insert_or_assign(key, stack(in, matrices, name, columns, width));
    }
  }
}

AnnData put_together(const Inputs& in) {
  const auto each = [&](auto&& get) {
    std::vector<std::remove_cvref_t<decltype(get(in.data[0]))>> out;
    for (const auto& a : in.data) out.push_back(get(a));
    return out;
  };
  AnnData out;
  out.obs = stack_obs(in);
  const auto vars = each([](const AnnData& a) { return &a.var; });
  const Genes genes = join_genes(in, vars);
  out.var = merge_var(in, vars, genes.names);
  const auto n_vars = static_cast<std::int64_t>(genes.names.size());
  const auto x = each([](const AnnData& a) { return a.X ? &*a.X : nullptr; });
  const auto with_x = std::count_if(x.begin(), x.end(), [](const auto* m) { return m != nullptr; });
  SCW_EXPECT(with_x == 0 || with_x == static_cast<std::ptrdiff_t>(x.size()), kOp, "{} of {} inputs have no X",
             static_cast<std::ptrdiff_t>(x.size()) - with_x, x.size());
  if (with_x > 0) out.X = stack(in, x, "X", genes.columns, n_vars);
  stack_axis(in, "layers", each([](const AnnData& a) -> const AxisElements* { return &a.layers; }), &genes, out.obs,
             out.layers);
  stack_axis(in, "obsm", each([](const AnnData& a) { return &a.obsm; }), nullptr, out.obs, out.obsm);
  if (in.options.uns_merge != Merge::none)
    out.uns = merge_uns(in, each([](const AnnData& a) { return a.uns.dict(); }), "/uns");
  const auto with_raw = std::count_if(in.data.begin(), in.data.end(), [](const auto& a) { return a.raw.has_value(); });
  if (with_raw == static_cast<std::ptrdiff_t>(in.size())) {
    const auto raw_vars = each([](const AnnData& a) -> const DataFrame* { return &a.raw->var; });
    const Genes raw_genes = join_genes(in, raw_vars);
    Raw raw;
    raw.var = merge_var(in, raw_vars, raw_genes.names);
    raw.X = stack(in, each([](const AnnData& a) -> const MatrixElement* { return &a.raw->X; }), "raw/X",
                  raw_genes.columns, static_cast<std::int64_t>(raw_genes.names.size()));
    out.raw = std::move(raw);
  } else if (with_raw > 0) {
    in.ctx.warn(fmt::format("{}: raw is left out: only {} of {} inputs have it", kOp, with_raw, in.size()));
  }
  return out;
}

}  // namespace

void concat(const Context& ctx, const std::vector<std::string>& inputs, const std::string& out,
            const ConcatOptions& options) {
  SCW_EXPECT(!inputs.empty(), kOp, "there are no inputs");
  SCW_EXPECT(options.keys.empty() || options.keys.size() == inputs.size(), kOp, "{} keys for {} inputs",
             options.keys.size(), inputs.size());
  const std::set<std::string> distinct(options.keys.begin(), options.keys.end());
  SCW_EXPECT(distinct.size() == options.keys.size(), kOp, "keys must be distinct (got {})",
             fmt::join(options.keys, ", "));
  expect_output(kOp, out, options.overwrite);
  ReadOptions how = options.read;
  how.stream_matrices = true;
  Inputs in{ctx, inputs, {}, {}, options};
  for (const auto& path : inputs) {
    in.data.push_back(read(ctx, path, how));
    expect_unchanged(kOp, in.data.back());
    in.n_obs.push_back(in.data.back().n_obs());
  }
  write(ctx, put_together(in), out, options.write);
}

}  // namespace scw::io
