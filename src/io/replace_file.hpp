// A file or folder that takes the place of another all at once.
#pragma once

#include <filesystem>
#include <string>

namespace scw::io {

/// A new file that becomes `target` when it is complete: commit() flushes it to disk and puts it in the place of what
/// was there, in one step. Whenever the program stops, the target is the old file or the whole new one.
///
/// Until then the file has no name where the file system can do that (O_TMPFILE), so that not even SIGKILL leaves
/// anything; elsewhere it is ".target.PID-N.tmp" beside the target, locked (flock) by its writer. Such files whose
/// writer is gone are removed when the same target is written again.
///
/// Throws IoError that names the target and the reason: it exists and is no regular file, its folder is not there or
/// cannot be written to, the disk is full. A target that is a symbolic link stays one: what it points to is replaced,
/// or made if it is not there.
class ReplaceFile {
 public:
  ReplaceFile(const char* op, const std::string& path);
  /// Drops the new file unless it was committed.
  ~ReplaceFile();
  ReplaceFile(const ReplaceFile&) = delete;
  ReplaceFile& operator=(const ReplaceFile&) = delete;

  /// The new file, empty, open for reading and writing.
  int fd() const { return fd_; }
  /// A path that opens it.
  const std::string& path() const { return path_; }
  void commit();

 private:
  bool open_nameless();
  void open_named();
  bool link_to(const std::filesystem::path& name) const;

  const char* op_;
  std::string shown_;  // as the caller calls it
  std::filesystem::path target_, folder_;
  std::filesystem::path temporary_;  // its name, where it has one
  std::string path_;
  int fd_ = -1;
};

/// The same for a folder of files: a new one that becomes `target` when it is complete. It is ".target.PID-N.tmp"
/// beside the target meanwhile, locked by its writer; commit() has everything in it flushed to disk and exchanges it
/// with what was there, in one step where the file system can do that (RENAME_EXCHANGE). Elsewhere there is neither for
/// a moment, and the old folder stands beside its place under the temporary name and ".old". Links stay, as above.
class ReplaceFolder {
 public:
  ReplaceFolder(const char* op, const std::string& path);
  /// Removes the new folder unless it was committed, else the old one.
  ~ReplaceFolder();
  ReplaceFolder(const ReplaceFolder&) = delete;
  ReplaceFolder& operator=(const ReplaceFolder&) = delete;

  const std::filesystem::path& target() const { return target_; }
  /// The new folder, empty.
  const std::filesystem::path& path() const { return temporary_; }
  void commit();

 private:
  void expect(bool ok, const char* what) const;
  void exchange();

  const char* op_;
  std::string shown_;  // as the caller calls it
  std::filesystem::path target_, folder_, temporary_;
  int fd_ = -1;
};

/// What other writers of `target` left behind when they were killed: files and folders ".target.PID-N.tmp" in its
/// folder that nobody has locked. Errors are ignored: this is a courtesy.
void remove_abandoned(const std::filesystem::path& target) noexcept;
/// A name for a temporary file or folder beside `target` that remove_abandoned knows.
std::filesystem::path temporary_name(const std::filesystem::path& target);

}  // namespace scw::io
