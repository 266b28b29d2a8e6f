// A store of many files as one piece of bytes, and damage that keeps it a store.
#pragma once

#include <functional>
#include <string>

#include "formats.hpp"
#include "mutate.hpp"
#include "scwarp/io/zarr.hpp"

namespace scw::fuzz {

/// Every file as: length of its name (2 bytes), its size (4 bytes), name, content. What is cut short ends where it
/// ends.
Bytes pack(const io::ZarrFiles& files);
io::ZarrFiles unpack(Span<const std::byte> packed);
/// All files below a folder.
io::ZarrFiles load_folder(const std::string& folder);

/// Changes content of at most `room` bytes; it may become shorter or longer.
using Change = std::function<void(Bytes& content, std::size_t room)>;

/// Changes one file of the store or a few: words and numbers of metadata, bytes, names, presence. CRC-32C checksums at
/// the ends of chunks and of the indices of shards are mostly put right, as an attacker would. `change` is for bytes
/// without a structure.
Bytes mutate_store(const Bytes& packed, std::size_t room, const Change& change, Dice& dice);

}  // namespace scw::fuzz
