#include "console.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <mutex>

namespace scw::cli {

namespace {
std::mutex g_output;  // log() comes from any thread
}

Console::Console(const Arguments& a)
    : json_(a.json), quiet_(a.quiet), verbose_(a.verbose), terminal_(!a.json && !a.quiet && ::isatty(2) == 1) {}

Console::~Console() { clear_bar(); }

void Console::clear_bar() {
  if (bar_shown_) std::fputs("\r\033[K", stderr);
  bar_shown_ = false;
}

void Console::event(const char* name, nlohmann::json fields) {
  if (!json_) return;
  fields["event"] = name;
  const std::lock_guard lock(g_output);
  const std::string text = fields.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
  std::fflush(stdout);
}

void Console::line(std::string_view text) {
  if (json_ || quiet_) return;
  const std::lock_guard lock(g_output);
  clear_bar();
  std::fprintf(stdout, "%.*s\n", static_cast<int>(text.size()), text.data());
  std::fflush(stdout);
}

void Console::error(std::string_view text, int exit_code) {
  event("error", {{"message", text}, {"exit_code", exit_code}});
  const std::lock_guard lock(g_output);
  clear_bar();
  if (!json_) std::fprintf(stderr, "scwarp: %.*s\n", static_cast<int>(text.size()), text.data());
}

void Console::start_step(const std::string& name) {
  step_ = name;
  event("step", {{"step", name}});
  last_update_ = {};
  if (terminal_) update(name, 0, 0);
}

void Console::end_step(const std::string& name, double seconds, std::int64_t peak_bytes, const std::string& summary) {
  event("done", {{"step", name}, {"seconds", seconds}, {"peak_bytes", peak_bytes}, {"summary", summary}});
  line(fmt::format("{:<16} {:>9}", name, format_seconds(seconds)));
}

void Console::update(std::string_view step, std::int64_t done, std::int64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_update_ < std::chrono::milliseconds(json_ ? 500 : 100)) return;
  last_update_ = now;
  if (json_) {
    event("progress", {{"step", step_}, {"part", step}, {"done", done}, {"total", total}});
    return;
  }
  if (!terminal_) return;
  winsize size{};
  const int width = ::ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  const std::string name = step_.empty() ? std::string(step) : step_;
  std::string text = fmt::format("{:<16} ", name);
  if (total > 0) {
    const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
    const int cells = std::clamp(width - 30, 10, 40);
    const int full = static_cast<int>(share * cells);
    for (int i = 0; i < cells; ++i) text += i < full ? "━" : "╌";
    text += fmt::format(" {:3.0f} %", 100 * share);
  } else {
    text += "…";
  }
  const std::lock_guard lock(g_output);
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
  bar_shown_ = true;
}

void Console::log(LogLevel level, std::string_view message) {
  constexpr const char* kNames[] = {"debug", "info", "warning"};
  event("log", {{"level", kNames[static_cast<int>(level)]}, {"message", message}});
  if (json_ || (level != LogLevel::warning && (quiet_ || !verbose_))) return;
  const std::lock_guard lock(g_output);
  clear_bar();
  std::fprintf(stderr, "%s%.*s\n", level == LogLevel::warning ? "warning: " : "", static_cast<int>(message.size()),
               message.data());
}

std::string format_count(std::int64_t n) {
  const std::string digits = std::to_string(n < 0 ? -n : n);
  std::string out = n < 0 ? "-" : "";
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ' ';
    out += digits[i];
  }
  return out;
}

std::string format_bytes(std::int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1e9) return fmt::format("{:.2f} GB", b / 1e9);
  if (b >= 1e6) return fmt::format("{:.1f} MB", b / 1e6);
  return fmt::format("{:.0f} kB", b / 1e3);
}

std::string format_seconds(double seconds) {
  if (seconds >= 100) return fmt::format("{:.0f} s", seconds);
  return fmt::format("{:.2f} s", seconds);
}

std::int64_t peak_resident_bytes() {
  // getrusage counts what the process that started this one had.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::int64_t{std::stoll(line.substr(6))} * 1024;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace scw::cli
