// Parts of a C++ AnnData for scwarp.io to put together again.
#pragma once

#include <type_traits>
#include <utility>

#include "bind.hpp"
#include "scwarp/anndata.hpp"

namespace scw::python {

/// (array or CSR parts, shape, stored layout, stored dtype)
inline nb::object to_python(MatrixElement&& m) {
  const auto shape = nb::make_tuple(m.n_rows(), m.n_cols());
  nb::object data = std::visit(
      []<class M>(M& x) -> nb::object {
        if constexpr (std::is_same_v<M, Csr<float>> || std::is_same_v<M, Csr<double>>)
          return to_csr_parts(std::move(x));
        else
          return to_array(std::move(x));
      },
      m.data);
  const char* layout = !m.stored_layout                        ? ""
                       : *m.stored_layout == StoredLayout::csr ? "csr"
                       : *m.stored_layout == StoredLayout::csc ? "csc"
                                                               : "dense";
  return nb::make_tuple(data, shape, std::string(layout), m.stored_dtype);
}

}  // namespace scw::python
