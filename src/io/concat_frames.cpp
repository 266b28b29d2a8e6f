#include "io/concat_frames.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>

#include "io/streams.hpp"

namespace scw::io {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::string dtype_of(const Column& c) {
  if (!c.stored_dtype.empty()) return c.stored_dtype;
  static const char* const names[] = {"int32", "int64", "float32", "float64"};
  return names[c.data.index()];
}

/// What a column's values are, whatever they are stored as.
enum class Values : std::uint8_t { numbers, bools, texts, other };
Values values_of(const Column& c) {
  if (c.is_numeric()) return Values::numbers;
  if (std::holds_alternative<Bools>(c.data)) return Values::bools;
  if (std::holds_alternative<std::vector<std::string>>(c.data)) return Values::texts;
  if (const auto* k = std::get_if<Categorical>(&c.data))
    return std::holds_alternative<Bools>(k->categories)                      ? Values::bools
           : std::holds_alternative<std::vector<std::string>>(k->categories) ? Values::texts
                                                                             : Values::numbers;
  return Values::other;
}

bool is_missing(const Column& c, std::size_t i) {
  if (const auto* k = std::get_if<Categorical>(&c.data)) return k->codes[i] < 0;
  return c.missing && (*c.missing)[i] != 0;
}
bool any_missing(const Column& c) {
  for (std::size_t i = 0; i < at(c.size()); ++i)
    if (is_missing(c, i)) return true;
  return false;
}

/// emit(i, value) for every row with a value that is a number or boolean.
template <class F>
void each_value(const Column& c, F&& emit) {
  const auto visit = [&](const auto& values) {
    if constexpr (requires { static_cast<double>(values[0]); })
      for (std::size_t i = 0; i < values.size(); ++i)
        if (!is_missing(c, i)) emit(i, values[i]);
  };
  if (const auto* k = std::get_if<Categorical>(&c.data)) {
    std::visit(
        [&]<class C>(const C& names) {
          const auto pick = [&](const auto& values) {
            if constexpr (requires { static_cast<double>(values[0]); })
              for (std::size_t i = 0; i < k->codes.size(); ++i)
                if (k->codes[i] >= 0) emit(i, values[static_cast<std::size_t>(k->codes[i])]);
          };
          if constexpr (std::is_same_v<C, Bools>)
            pick(names.values);
          else
            pick(names);
        },
        k->categories);
  } else if (const auto* flags = std::get_if<Bools>(&c.data)) {
    visit(flags->values);
  } else {
    std::visit(visit, c.data);
  }
}

/// Numbers and booleans, as numbers of a common type; all booleans: as booleans.
Column numbers(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows) {
  std::string dtype;
  bool nullable = false, holes = false;
  for (const Column* c : parts) {
    holes = holes || c == nullptr || any_missing(*c);
    if (c == nullptr) continue;
    nullable = nullable || c->missing;
    if (values_of(*c) == Values::bools) continue;
    std::string own = dtype_of(*c);
    if (const auto* k = std::get_if<Categorical>(&c->data))
      own = std::holds_alternative<std::vector<double>>(k->categories) ? "float64" : "int64";
    dtype = dtype.empty() ? own : common_dtype(dtype, own);
  }
  const bool bools = dtype.empty();
  // Of what is missing only floating types and nullable ones can tell; nullable floating types have no form in files.
  if (!bools && !dtype.starts_with("float") && holes && !nullable) dtype = "float64";
  const bool masks = (bools && holes) || (nullable && !dtype.starts_with("float"));
  std::vector<std::uint8_t> missing;
  const auto fill = [&]<class T>(T none) {
    std::vector<T> out;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      const std::size_t first = out.size();
      out.resize(first + at(n_rows[k]), none);
      if (masks) missing.resize(out.size(), 1);
      if (parts[k] == nullptr) continue;
      each_value(*parts[k], [&](std::size_t i, auto value) {
        out[first + i] = static_cast<T>(value);
        if (masks) missing[first + i] = 0;
      });
    }
    return out;
  };
  Column out;
  if (bools)
    out.data = Bools{fill(std::uint8_t{})};
  else if (dtype == "float64")
    out.data = fill(std::numeric_limits<double>::quiet_NaN());
  else if (dtype.starts_with("float"))
    out.data = fill(std::numeric_limits<float>::quiet_NaN());
  else if (dtype == "int64" || dtype == "uint32" || dtype == "uint64")
    out.data = fill(std::int64_t{});
  else
    out.data = fill(std::int32_t{});
  out.stored_dtype = dtype;
  if (masks) out.missing = std::move(missing);
  return out;
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
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool none = is_missing(c, i) || std::visit(
                                                [&](const auto& v) {
                                                  if constexpr (requires { std::isnan(v[i]); }) return std::isnan(v[i]);
                                                  return false;
                                                },
                                                c.data);
      out.push_back(none ? std::nullopt : std::optional(all[i]));
    }
  }
  return out;
}

/// Texts in the order of a person: runs of digits count as numbers.
bool natural_less(std::string_view a, std::string_view b) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  // The next piece: what comes before a number (which may be nothing), or a number without its leading zeros.
  const auto piece = [&](std::string_view& s, bool digits) {
    const auto end = std::find_if(s.begin(), s.end(), [&](char c) { return is_digit(c) != digits; });
    std::string_view out(s.begin(), end);
    s.remove_prefix(out.size());
    if (digits) out.remove_prefix(std::min(out.find_first_not_of('0'), out.size()));
    return out;
  };
  for (bool digits = false;; digits = !digits) {
    if (a.empty() || b.empty()) return a.empty() && !b.empty();
    const auto x = piece(a, digits), y = piece(b, digits);
    if (digits && x.size() != y.size()) return x.size() < y.size();
    if (x != y) return x < y;
  }
}

template <class T>
std::vector<T> categories_as(const Categorical::Categories& c) {
  std::vector<T> out;
  std::visit(
      [&]<class C>(const C& v) {
        if constexpr (std::is_same_v<C, Bools>) {
          if constexpr (std::is_same_v<T, std::uint8_t>) out = v.values;
        } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<typename C::value_type, std::string>) {
          if constexpr (std::is_same_v<T, typename C::value_type>) out = v;
        } else {
          for (const auto x : v) out.push_back(static_cast<T>(x));
        }
      },
      c);
  return out;
}

/// Categories of the same kind put together: as they are in the first input if that has them all, else in natural
/// order; ordered ones only if all are the same. Nothing where anndata gives no categories.
template <class T>
std::optional<Column> categories(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows) {
  std::vector<std::vector<T>> each(parts.size());
  std::vector<T> all;
  const std::vector<T>* first = nullptr;
  bool any_ordered = false, all_ordered = true;
  const auto sorted = [](std::vector<T> v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
    return v;
  };
  for (std::size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] == nullptr) continue;
    const auto& c = std::get<Categorical>(parts[k]->data);
    each[k] = categories_as<T>(c.categories);
    if (first == nullptr) first = &each[k];
    any_ordered = any_ordered || c.ordered;
    if (each[k].empty()) continue;
    all_ordered = all_ordered && c.ordered;
    if (all.empty()) {
      all = each[k];
    } else if (all != each[k]) {
      all.insert(all.end(), each[k].begin(), each[k].end());
      all = sorted(std::move(all));
    }
  }
  if (any_ordered) {
    const bool same = std::all_of(each.begin(), each.end(), [&](const auto& own) { return own.empty() || own == all; });
    if (!all_ordered || !same || all.empty()) return std::nullopt;
  } else if (sorted(*first) == sorted(all)) {
    all = *first;
  } else if constexpr (std::is_same_v<T, std::string>) {
    std::stable_sort(all.begin(), all.end(), natural_less);
  } else {
    std::sort(all.begin(), all.end());
  }
  std::map<T, std::int32_t> position;
  for (std::size_t i = 0; i < all.size(); ++i) position.emplace(all[i], static_cast<std::int32_t>(i));
  Categorical out;
  out.ordered = any_ordered;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    if (parts[k] == nullptr) {
      out.codes.insert(out.codes.end(), at(n_rows[k]), -1);
      continue;
    }
    for (const auto code : std::get<Categorical>(parts[k]->data).codes)
      out.codes.push_back(code < 0 ? -1 : position.at(each[k][static_cast<std::size_t>(code)]));
  }
  if constexpr (std::is_same_v<T, std::uint8_t>)
    out.categories = Bools{std::move(all)};
  else
    out.categories = std::move(all);
  return Column(std::move(out));
}

}  // namespace

std::optional<Column> concat_columns(const std::vector<const Column*>& parts, const std::vector<std::int64_t>& n_rows,
                                     bool& mixed) {
  const auto all = [&](auto&& is) {
    return std::all_of(parts.begin(), parts.end(), [&](const Column* c) { return c == nullptr || is(*c); });
  };
  const auto all_are = [&](Values kind) { return all([&](const Column& c) { return values_of(c) == kind; }); };
  mixed = false;
  if (!all([](const Column& c) { return values_of(c) != Values::other; })) return std::nullopt;
  const bool texts_only = all_are(Values::texts), bools_only = all_are(Values::bools);
  const bool numbers_only = all_are(Values::numbers);
  if (all([](const Column& c) { return c.is_categorical(); })) {
    std::optional<Column> c;
    const bool whole = all([](const Column& x) {
      return std::holds_alternative<std::vector<std::int64_t>>(std::get<Categorical>(x.data).categories);
    });
    if (texts_only) c = categories<std::string>(parts, n_rows);
    if (bools_only) c = categories<std::uint8_t>(parts, n_rows);
    if (numbers_only && whole) c = categories<std::int64_t>(parts, n_rows);
    if (numbers_only && !whole) c = categories<double>(parts, n_rows);
    if (c) return c;
  }
  if (all([](const Column& c) { return values_of(c) != Values::texts; })) return numbers(parts, n_rows);
  mixed = !texts_only;
  if (texts_only && all([](const Column& c) { return !c.missing && !c.is_categorical(); }) &&
      std::find(parts.begin(), parts.end(), nullptr) == parts.end()) {
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
    if (a.data.index() != b.data.index() || dtype_of(a) != dtype_of(b) || a.missing != b.missing) return false;
    // Rows that are missing hold anything.
    return std::visit(
        [&]<class D>(const D& x) {
          bool same = true;
          if constexpr (requires { static_cast<double>(x[0]); }) {
            const D& y = std::get<D>(b.data);
            for (std::size_t i = 0; i < x.size(); ++i)
              same = same && (x[i] == y[i] || (x[i] != x[i] && y[i] != y[i]) || is_missing(a, i));
          }
          return same;
        },
        a.data);
  }
  if (a.data.index() != b.data.index() || std::holds_alternative<OpaqueRows>(a.data) ||
      a.missing.has_value() != b.missing.has_value())
    return false;
  if (a.is_categorical()) {
    const auto &x = std::get<Categorical>(a.data), &y = std::get<Categorical>(b.data);
    auto names = x.category_names(), others = y.category_names();
    std::sort(names.begin(), names.end());
    std::sort(others.begin(), others.end());
    if (x.categories.index() != y.categories.index() || x.ordered != y.ordered || names != others ||
        (x.ordered && x.categories != y.categories))
      return false;
  }
  return texts(a) == texts(b);
}

}  // namespace scw::io
