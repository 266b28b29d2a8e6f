// What the user sees: bars on a terminal, plain lines elsewhere, JSON events on request. The only place that prints.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "app.hpp"
#include "scwarp/core/context.hpp"

namespace scw::cli {

class Console final : public Progress, public LogSink {
 public:
  explicit Console(const Arguments& arguments);
  ~Console() override;

  /// One JSON event; nothing in the other modes.
  void event(const char* name, nlohmann::json fields = nlohmann::json::object());
  /// A line for people; nothing in JSON and quiet mode.
  void line(std::string_view text);
  void error(std::string_view text, int exit_code);

  void start_step(const std::string& name);
  void end_step(const std::string& name, double seconds, std::int64_t peak_bytes, const std::string& summary);

  void update(std::string_view step, std::int64_t done, std::int64_t total) override;
  void log(LogLevel level, std::string_view message) override;

  bool json() const { return json_; }

 private:
  void clear_bar();

  bool json_, quiet_, verbose_, terminal_;
  bool bar_shown_ = false;
  std::string step_;
  std::chrono::steady_clock::time_point last_update_{};
};

/// "1 234 567", "12.3 MB", "1.23 s".
std::string format_count(std::int64_t n);
std::string format_bytes(std::int64_t bytes);
std::string format_seconds(double seconds);

/// Largest resident memory of this process so far, in bytes.
std::int64_t peak_resident_bytes();

}  // namespace scw::cli
