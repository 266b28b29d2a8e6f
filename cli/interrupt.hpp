// Ctrl-C and SIGTERM: the running operation is asked to stop; what does not stop in time is ended, without leaving a
// half-written file.
#pragma once

#include <atomic>
#include <string>

namespace scw::cli {

class Interrupt {
 public:
  /// Handles both signals from now on.
  static void install();
  /// For Context::cancelled.
  static const std::atomic<bool>* flag();
  /// 130 after SIGINT, 143 after SIGTERM, else 0.
  static int exit_code();
  /// Temporary files of this process beside `path` are removed if the program has to be ended.
  static void watch_output(const std::string& path);
};

}  // namespace scw::cli
