#include "interrupt.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

namespace scw::cli {

namespace {

std::atomic<bool> g_cancelled{false};
std::atomic<int> g_signal{0};
std::mutex g_mutex;
std::vector<std::filesystem::path> g_outputs;

/// Writers in this project write ".NAME.PID....tmp" beside NAME and rename it.
void remove_temporaries() {
  namespace fs = std::filesystem;
  const std::lock_guard lock(g_mutex);
  for (const auto& path : g_outputs) {
    std::error_code ignored;
    const std::string start = fmt::format(".{}.{}", path.filename().string(), ::getpid());
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(start) && name.ends_with(".tmp")) fs::remove(entry.path(), ignored);
    }
  }
}

void wait_for_signals(sigset_t set) {
  int signal = 0;
  if (sigwait(&set, &signal) != 0) return;
  g_signal = signal;
  g_cancelled = true;
  // Operations poll the flag many times a second; a library call in between (HDF5, LAPACK) may not.
  const timespec patience{0, 800'000'000};
  siginfo_t info;
  sigtimedwait(&set, &info, &patience);  // or until a second signal
  remove_temporaries();
  ::_exit(128 + signal);
}

}  // namespace

void Interrupt::install() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::thread(wait_for_signals, set).detach();
}

const std::atomic<bool>* Interrupt::flag() { return &g_cancelled; }

int Interrupt::exit_code() { return g_signal == 0 ? 0 : 128 + g_signal; }

void Interrupt::watch_output(const std::string& path) {
  const std::lock_guard lock(g_mutex);
  g_outputs.emplace_back(path);
}

}  // namespace scw::cli
