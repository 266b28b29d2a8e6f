// AnnData in any store: the decoder and the encoder that h5ad and Zarr share.
//
// Encodings: anndata 0.7 to 0.12 (https://anndata.readthedocs.io/en/latest/fileformat-prose.html), and the older layout
// of 0.6.
#pragma once

#include <memory>
#include <string>

#include "io/store.hpp"
#include "scwarp/io/h5ad.hpp"

namespace scw::io {

/// To the host.
AnnData read_anndata(const Context& ctx, std::shared_ptr<const Store> source, const ReadH5adOptions& options);
/// One matrix, to ctx.device. InvalidArgument if it is not there.
MatrixElement read_anndata_matrix(const Context& ctx, std::shared_ptr<const Store> source, const std::string& element,
                                  const ReadH5adOptions& options);

/// Writes everything; data was validated. Elements that came from a store and were not changed are copied from it.
void write_anndata(StoreWriter& out, const AnnData& data);

}  // namespace scw::io
