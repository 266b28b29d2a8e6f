// Zarr as a Store.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/store.hpp"
#include "io/zarr_meta.hpp"
#include "io/zarr_tree.hpp"

namespace scw::io::zarr {

class SCW_API ZarrStore final : public Store {
 public:
  /// Throws FormatError if the tree holds no Zarr group.
  static std::shared_ptr<const ZarrStore> open(const char* op, std::string name, std::unique_ptr<Tree> tree);

  const char* format() const override { return version_ == 2 ? "Zarr version 2" : "Zarr version 3"; }
  bool is_unchanged() const override { return tree_->is_unchanged(); }
  std::unique_ptr<Node> root() const override;

  int version() const { return version_; }
  const Tree& tree() const { return *tree_; }
  /// The metadata of a node; null if there is no node in the folder. `is_group` says which.
  Json metadata(const std::string& folder, bool& is_group) const;
  Json attributes(const std::string& folder, const Json& metadata) const;

 private:
  ZarrStore(const char* op, std::string name, std::unique_ptr<Tree> tree)
      : Store(op, std::move(name)), tree_(std::move(tree)) {}
  Json load(const std::string& key) const;

  std::unique_ptr<Tree> tree_;
  int version_ = 0;
};

}  // namespace scw::io::zarr
