#include "interrupt.hpp"

#include <fmt/format.h>
#include <semaphore.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

namespace scw::cli {

namespace {

std::atomic<bool> g_cancelled{false};
std::atomic<int> g_signal{0};
sem_t g_event;
std::mutex g_mutex;
std::vector<std::filesystem::path> g_outputs;

/// Writers in this project write ".NAME.PID....tmp" beside NAME and rename it.
void remove_temporaries() {
  namespace fs = std::filesystem;
  const std::lock_guard lock(g_mutex);
  for (const auto& path : g_outputs) {
    std::error_code ignored;
    const std::string start = fmt::format(".{}.{}-", path.filename().string(), ::getpid());
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(start) || !name.ends_with(".tmp")) continue;
      // Out of the writer's reach first: what is half removed must not be put in its place.
      const fs::path away = folder / fmt::format("{}99999999.tmp", start);
      fs::rename(entry.path(), away, ignored);
      if (!ignored) fs::remove_all(away, ignored);
    }
  }
}

/// Async-signal-safe: two stores and a post. (A blocked mask would not do: libraries start threads before main.)
extern "C" void on_signal(int signal) {
  int none = 0;
  g_signal.compare_exchange_strong(none, signal);
  g_cancelled = true;
  sem_post(&g_event);
}

void wait_for_signals() {
  while (sem_wait(&g_event) != 0) {
  }
  // Operations poll the flag many times a second; a library call in between (HDF5, LAPACK) may not.
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += 800'000'000;
  until.tv_sec += until.tv_nsec / 1'000'000'000;
  until.tv_nsec %= 1'000'000'000;
  while (sem_timedwait(&g_event, &until) != 0 && errno == EINTR) {  // or until a second signal
  }
  remove_temporaries();
  ::_exit(128 + g_signal);
}

}  // namespace

void Interrupt::install() {
  sem_init(&g_event, 0, 0);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::thread(wait_for_signals).detach();
}

const std::atomic<bool>* Interrupt::flag() { return &g_cancelled; }

int Interrupt::exit_code() { return g_signal == 0 ? 0 : 128 + g_signal; }

void Interrupt::watch_output(const std::string& path) {
  const std::lock_guard lock(g_mutex);
  std::filesystem::path target(path);
  while (!target.has_filename() && target.has_parent_path() && target != target.root_path())
    target = target.parent_path();
  g_outputs.push_back(std::move(target));
}

}  // namespace scw::cli
