// Decodes an AnnData from a store. One class in three files: matrices (anndata_matrices.cpp), columns and frames
// (anndata_columns.cpp), everything else (anndata_read.cpp).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "io/anndata_codec.hpp"
#include "io/store.hpp"

namespace scw::io {

struct Selection;

class AnnDataReader {
 public:
  /// Matrices go where `ctx` is, everything else to the host.
  AnnDataReader(const Context& ctx, std::shared_ptr<const Store> source, const ReadH5adOptions& options)
      : to_(ctx), ctx_(ctx.host()), source_(std::move(source)), options_(options), session_(source_->session()) {}

  AnnData read();
  /// One element, where `ctx` is.
  MatrixElement element(const std::string& name);

 private:
  MatrixElement matrix(const Node& node);
  /// The values of X, if options ask for it.
  void check_matrix(const Node& node, const MatrixElement& m);
  static std::string encoding(const Node& node) { return node.text_attribute("encoding-type").value_or(""); }
  static Foreign foreign(const Node& node, const std::string& type);
  static bool is_sparse(const Node& node);

  template <class T>
  Array<T> numbers(const StoredArray& d, const char* tag) {
    Array<T> out(ctx_.memory, d.count, tag);
    if (!d.read_numbers(ctx_, out.data())) d.fail("holds values out of range for {} bits", sizeof(T) * 8);
    return out;
  }
  template <class T>
  std::vector<T> small_numbers(const StoredArray& d) {
    std::vector<T> out(static_cast<std::size_t>(d.count));
    if (!d.read_numbers(ctx_, out.data())) d.fail("holds values out of range for {} bits", sizeof(T) * 8);
    return out;
  }
  static std::unique_ptr<StoredArray> vector_of(const Node& group, const char* name, std::int64_t expected);

  template <class T>
  bool read_pieces(const Context& to, const StoredArray& d, T* out, std::int64_t rows,
                   const std::function<void(std::int64_t, const T*, std::int64_t)>& look = {});
  bool is_selection() const { return !options_.obs_mask.empty() || !options_.var_mask.empty(); }
  template <class V>
  std::optional<Csr<V>> selected_sparse(const Node& node, const Array<std::int64_t>& offsets,
                                        const StoredArray& indices, const StoredArray& values, const Selection& major,
                                        const Selection& minor, bool by_column);
  template <class V>
  std::optional<Matrix<V>> selected_dense(const StoredArray& d, const Selection& rows, const Selection& cols);

  MatrixElement sparse(const Node& node, bool keep_order = false);
  /// Cells or genes that the store has names for, whichever are more.
  std::int64_t longest_axis() const;
  template <class V>
  Csr<V> finish_sparse(const Node& node, bool by_column, bool keep_order, bool checked, std::int64_t n_rows,
                       std::int64_t n_cols, Array<std::int64_t> indptr, Array<std::int32_t> indices, Array<V> values);
  template <class V>
  void repair(const Node& node, bool by_column, bool keep_order, std::int64_t n_major, std::int64_t n_minor,
              const Array<std::int64_t>& indptr, Array<std::int32_t>& indices, Array<V>& values);
  MatrixElement dense(const StoredArray& d);
  [[noreturn]] static void inexact(const StoredArray& d);
  void not_streamed(const std::string& path) const {
    ctx_.info(fmt::format("{}: '{}', object '{}': cannot be read in pieces; it is held in memory", source_->op(),
                          source_->name(), path));
  }
  template <class V>
  void check_counts(const Node& node, const V* values, std::int64_t n,
                    const std::function<std::string(std::int64_t)>& where);

  Column column(const Node& node, std::int64_t n_rows, const Node* frame);
  Categorical::Categories categories(const StoredArray& d);
  Categorical categorical(const Node& where, const StoredArray& codes, const StoredArray& names, bool ordered);
  std::optional<Column> plain_column(const StoredArray& d);
  DataFrame frame(const Node& node);
  DataFrame record_frame(const StoredArray& d);

  /// `others`: without what is_selectable.
  AxisElements axis(const Node& parent, const char* name, std::int64_t rows, std::int64_t cols, bool others = false);
  bool is_selectable(const Node& node) const;
  /// What f reads, of these rows and columns of matrices only.
  template <class F>
  auto selecting(Span<const std::uint8_t> obs_mask, Span<const std::uint8_t> var_mask, F&& f) {
    options_.obs_mask = obs_mask;
    options_.var_mask = var_mask;
    auto out = f();
    options_.obs_mask = options_.var_mask = {};
    return out;
  }
  std::optional<AxisElement> axis_element(const Node& node, bool keep_order);
  Value value(const Node& node, int depth);
  Value array_value(const StoredArray& d);
  void adopt_legacy_categories(AnnData& a);

  const Context to_, ctx_;
  std::shared_ptr<const Store> source_;
  ReadH5adOptions options_;
  std::shared_ptr<void> session_;
  std::set<std::uint64_t> groups_seen_;
};

}  // namespace scw::io
