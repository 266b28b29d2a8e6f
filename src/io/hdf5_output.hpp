// An HDF5 file that is being written, through a driver of our own.
#pragma once

#include <hdf5.h>

#include <string>

#include "io/hdf5.hpp"
#include "io/replace_file.hpp"

namespace scw::io::h5 {

/// A new HDF5 file that takes its place when it is complete (see ReplaceFile). The caller holds a Session.
///
/// The driver exists for what happens when the disk does not play along: HDF5's own tells the library, which crashes
/// here and there on its way out, tries again when the process ends, and keeps the reason to itself. Ours remembers the
/// reason, takes everything that follows and writes nothing; check() then throws.
class OutputFile {
 public:
  /// `newer`: may use structures of HDF5 1.8, which some contents need; else the oldest that can hold the file.
  OutputFile(const char* op, const std::string& path, bool newer);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  hid_t id() const { return state_->file; }
  /// Closes the file and puts it in its place. Throws IoError.
  void commit();

  struct State {
    hid_t file = H5I_INVALID_HID;
    int fd = -1;
    int error = 0;  ///< errno of the first write that failed
    bool given_up = false;
  };
  /// The reason for which the operating system refused to write the file that is being written; "" if it did not.
  static std::string refusal();

 private:
  bool close();
  const char* op_;
  std::string shown_;
  ReplaceFile replacement_;
  State* state_;  ///< stays if the library does not let go of the file
};

}  // namespace scw::io::h5
