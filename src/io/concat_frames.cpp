#include "io/concat_frames.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "io/streams.hpp"

namespace scw::io {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::string dtype_of(const Column& c) {
  if (!c.stored_dtype.empty()) return c.stored_dtype;
  static const char* const names[] = {"int32", "int64", "float32", "float64"};
  return names[c.data.index()];
}

/// Numbers of a common type; row i of part k is put at begin(k) + i.
Column numbers(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows, std::string dtype) {
  const auto fill = [&]<class T>(T missing) {
    std::vector<T> out;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      if (parts[k] == nullptr) {
        out.insert(out.end(), at(n_rows[k]), missing);
        continue;
      }
      std::visit(
          [&]<class D>(const D& v) {
            if constexpr (requires { static_cast<T>(v[0]); })
              for (const auto x : v) out.push_back(static_cast<T>(x));
          },
          parts[k]->data);
    }
    Column c(std::move(out));
    c.stored_dtype = dtype;
    return c;
  };
  if (dtype == "float64") return fill(std::numeric_limits<double>::quiet_NaN());
  if (dtype.starts_with("float")) return fill(std::numeric_limits<float>::quiet_NaN());
  if (dtype == "int64" || dtype == "uint32" || dtype == "uint64") return fill(std::int64_t{});
  return fill(std::int32_t{});
}

Column texts_as_categories(const std::vector<std::optional<std::string>>& all) {
  std::map<std::string, std::int32_t> codes;
  for (const auto& t : all)
    if (t) codes.emplace(*t, 0);
  Categorical out;
  std::vector<std::string> names;
  for (auto& [name, code] : codes) {
    code = static_cast<std::int32_t>(names.size());
    names.push_back(name);
  }
  for (const auto& t : all) out.codes.push_back(t ? codes[*t] : -1);
  out.categories = std::move(names);
  return Column(std::move(out));
}

std::vector<std::optional<std::string>> texts(const Column& c) {
  std::vector<std::optional<std::string>> out;
  if (const auto* k = std::get_if<Categorical>(&c.data)) {
    const auto names = k->category_names();
    for (const auto code : k->codes)
      out.push_back(code < 0 ? std::nullopt : std::optional(names[static_cast<std::size_t>(code)]));
  } else {
    const auto all = c.to_strings();
    for (std::size_t i = 0; i < all.size(); ++i)
      out.push_back(c.missing && (*c.missing)[i] != 0 ? std::nullopt : std::optional(all[i]));
  }
  return out;
}

/// Categories of the same kind, put together; nothing if kinds or orders disagree.
std::optional<Column> categories(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows) {
  const Categorical* first = nullptr;
  bool same = true, ordered = false;
  for (const Column* c : parts) {
    if (c == nullptr) continue;
    const auto& k = std::get<Categorical>(c->data);
    if (first == nullptr) first = &k;
    if (k.categories.index() != first->categories.index()) return std::nullopt;
    same = same && k.categories == first->categories && k.ordered == first->ordered;
    ordered = ordered || k.ordered;
  }
  if (ordered && !same) return std::nullopt;
  Categorical out;
  out.ordered = first->ordered;
  std::vector<std::vector<std::int32_t>> code_of(parts.size());
  bool ok = true;
  std::visit(
      [&]<class C>(const C& start) {
        if constexpr (std::is_same_v<C, Bools>) {
          ok = same;
          out.categories = start;
        } else {
          C all = start;
          for (const Column* c : parts) {
            if (c == nullptr) continue;
            // As pandas unites indexes: in order while they are equal, sorted from the first difference on.
            const auto& more = std::get<C>(std::get<Categorical>(c->data).categories);
            if (more == all || more.empty()) continue;
            if (all.empty()) {
              all = more;
              continue;
            }
            all.insert(all.end(), more.begin(), more.end());
            std::sort(all.begin(), all.end());
            all.erase(std::unique(all.begin(), all.end()), all.end());
          }
          std::map<typename C::value_type, std::int32_t> position;
          for (std::size_t i = 0; i < all.size(); ++i) position.emplace(all[i], static_cast<std::int32_t>(i));
          for (std::size_t k = 0; k < parts.size(); ++k)
            if (parts[k] != nullptr)
              for (const auto& v : std::get<C>(std::get<Categorical>(parts[k]->data).categories))
                code_of[k].push_back(position.at(v));
          out.categories = std::move(all);
        }
      },
      first->categories);
  if (!ok) return std::nullopt;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] == nullptr) {
      out.codes.insert(out.codes.end(), at(n_rows[k]), -1);
      continue;
    }
    for (const auto code : std::get<Categorical>(parts[k]->data).codes)
      out.codes.push_back(code < 0 || code_of[k].empty() ? code : code_of[k][static_cast<std::size_t>(code)]);
  }
  return Column(std::move(out));
}

}  // namespace

std::optional<Column> concat_columns(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows) {
  const auto all = [&](auto&& is) {
    return std::all_of(parts.begin(), parts.end(), [&](const Column* c) { return c == nullptr || is(*c); });
  };
  const bool holes = std::find(parts.begin(), parts.end(), nullptr) != parts.end();
  const bool nullable = !all([](const Column& c) { return !c.missing; });
  if (!all([](const Column& c) { return c.size() >= 0 && !std::holds_alternative<OpaqueRows>(c.data); }))
    return std::nullopt;
  if (all([](const Column& c) { return c.is_categorical(); }))
    if (auto c = categories(parts, n_rows)) return c;
  const bool bools = all([](const Column& c) { return std::holds_alternative<Bools>(c.data); });
  const bool plain = all([](const Column& c) { return c.is_numeric(); });
  if (bools || (plain && nullable && all([](const Column& c) { return c.data.index() < 2; }))) {
    Column out;
    std::vector<std::uint8_t> missing, flags;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      const auto n = at(n_rows[k]);
      if (parts[k] == nullptr) {
        missing.insert(missing.end(), n, 1);
        flags.insert(flags.end(), n, 0);
        continue;
      }
      if (parts[k]->missing)
        missing.insert(missing.end(), parts[k]->missing->begin(), parts[k]->missing->end());
      else
        missing.insert(missing.end(), n, 0);
      if (bools) {
        const auto& v = std::get<Bools>(parts[k]->data).values;
        flags.insert(flags.end(), v.begin(), v.end());
      }
    }
    if (bools) {
      out = Column(Bools{std::move(flags)});
    } else {
      std::string dtype;
      for (const Column* c : parts)
        if (c != nullptr) dtype = dtype.empty() ? dtype_of(*c) : common_dtype(dtype, dtype_of(*c));
      out = numbers(parts, n_rows, dtype);
    }
    if (nullable || holes) out.missing = std::move(missing);
    return out;
  }
  if (plain && !nullable) {
    std::string dtype;
    for (const Column* c : parts)
      if (c != nullptr) dtype = dtype.empty() ? dtype_of(*c) : common_dtype(dtype, dtype_of(*c));
    if (holes && !dtype.starts_with("float")) dtype = "float64";
    return numbers(parts, n_rows, dtype);
  }
  if (!holes && !nullable &&
      all([](const Column& c) { return std::holds_alternative<std::vector<std::string>>(c.data); })) {
    std::vector<std::string> out;
    for (const Column* c : parts) {
      const auto& v = std::get<std::vector<std::string>>(c->data);
      out.insert(out.end(), v.begin(), v.end());
    }
    return Column(std::move(out));
  }
  std::vector<std::optional<std::string>> out;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] == nullptr) {
      out.resize(out.size() + at(n_rows[k]));
      continue;
    }
    auto more = texts(*parts[k]);
    out.insert(out.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return texts_as_categories(out);
}

std::optional<Column> take(const Column& c, const std::vector<std::int64_t>& rows) {
  const bool holes = std::find(rows.begin(), rows.end(), -1) != rows.end();
  const auto missing_at = [&](std::int64_t r) { return r < 0 || (c.missing && (*c.missing)[at(r)] != 0); };
  Column out;
  out.stored_dtype = c.stored_dtype;
  if (c.is_numeric()) {
    std::visit(
        [&]<class D>(const D& v) {
          if constexpr (requires { static_cast<double>(v[0]); }) {
            using T = typename D::value_type;
            if (holes && !c.missing && std::is_integral_v<T>) {
              std::vector<double> values;
              for (const auto r : rows)
                values.push_back(r < 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(v[at(r)]));
              out.data = std::move(values);
              out.stored_dtype.clear();
            } else {
              D values;
              for (const auto r : rows)
                values.push_back(r >= 0 ? v[at(r)] : std::is_integral_v<T> ? T{} : std::numeric_limits<T>::quiet_NaN());
              out.data = std::move(values);
            }
          }
        },
        c.data);
  } else if (const auto* flags = std::get_if<Bools>(&c.data)) {
    Bools values;
    for (const auto r : rows) values.values.push_back(r < 0 ? 0 : flags->values[at(r)]);
    out.data = std::move(values);
    if (holes && !c.missing) out.missing.emplace();
  } else if (const auto* k = std::get_if<Categorical>(&c.data)) {
    Categorical values;
    values.categories = k->categories;
    values.ordered = k->ordered;
    for (const auto r : rows) values.codes.push_back(r < 0 ? -1 : k->codes[at(r)]);
    out.data = std::move(values);
    return out;
  } else if (std::holds_alternative<std::vector<std::string>>(c.data)) {
    const auto all = texts(c);
    std::vector<std::optional<std::string>> picked;
    for (const auto r : rows) picked.push_back(r < 0 ? std::nullopt : all[at(r)]);
    if (holes || c.missing) return texts_as_categories(picked);
    std::vector<std::string> values;
    for (auto& t : picked) values.push_back(std::move(*t));
    out.data = std::move(values);
    return out;
  } else {
    return std::nullopt;
  }
  if (c.missing) out.missing.emplace();
  if (out.missing)
    for (const auto r : rows) out.missing->push_back(missing_at(r) ? 1 : 0);
  return out;
}

bool same_column(const Column& a, const Column& b) {
  if (a.size() < 0 || a.size() != b.size()) return false;
  if (a.is_numeric() && b.is_numeric()) {
    const auto x = a.to_double(), y = b.to_double();
    return std::equal(x.begin(), x.end(), y.begin(), [](double p, double q) { return p == q || (p != p && q != q); });
  }
  if (a.is_numeric() != b.is_numeric() || std::holds_alternative<OpaqueRows>(a.data) ||
      std::holds_alternative<OpaqueRows>(b.data))
    return false;
  return texts(a) == texts(b);
}

}  // namespace scw::io
