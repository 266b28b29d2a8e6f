// Objects from one HDF5 file into another as they are.
#pragma once

#include <string>

#include "io/hdf5.hpp"

namespace scw::io::h5 {

/// Copies an object with everything below it and all attributes. The library's own way (H5Ocopy) believes what is
/// stored, and damaged files crash it: here groups are made anew, chunks are carried over packed as they are, and texts
/// and sequences go through the checks of our reader. Hard links to one object stay links to one object; soft links are
/// kept. What refers to places in the old file (references) is left out, with a warning. Throws NotSupported, by
/// name, for what cannot be checked: sequences inside sequences or records, and texts in chunks of three dimensions
/// or more or packed by filters that scwarp does not know.
void copy_object(const Target& to, const std::string& name, const Node& from);

}  // namespace scw::io::h5
