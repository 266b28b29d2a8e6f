// Replays files and deterministic mutants of them against the readers: each must end in data or in a scw::Error.
// Mutant i of a run with the same seed and files is always the same bytes.
//
//   fuzz_replay [--format NAME] [--corpus FOLDER] [--seconds S | --mutants N] [--first I] [--seed S] [--keep FOLDER]
//               [FILE ...]
//
// FOLDER has a folder of files per format (make_corpus.py writes it); without, and without FILEs, it starts from its
// own examples. All formats unless one is named; the seconds are shared out among them. Work is done in child
// processes, so that a crash, a sanitizer report or a hang (over 20 s) is counted, the mutant named and kept, and the
// run goes on. Exit code 1 if there was any.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "formats.hpp"
#include "mutate.hpp"
#include "scwarp/core/error.hpp"
#include "store.hpp"

/// The HDF5 library asks for what a damaged file declares and copes with a refusal; the sanitizer must not stop it.
extern "C" SCW_API const char* __asan_default_options() { return "allocator_may_return_null=1:detect_leaks=0"; }

namespace {

using namespace scw::fuzz;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string format, corpus, keep;
  std::vector<std::string> files;
  std::uint64_t mutants = 1000, first = 0, seed = 1;
  double seconds = 0;  // 0: by number of mutants
};

Bytes load(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return to_bytes(std::string{std::istreambuf_iterator<char>(in), {}});
}

std::vector<Bytes> files_of(const Format& format, const Options& o) {
  std::vector<Bytes> files;
  for (const auto& path : o.files) files.push_back(load(path));
  if (!files.empty()) return files;
  files = examples(format);
  // The formats that are other uses of a reader start from the same files.
  const char* const same = format.shape == Shape::store ? "zarr" : "h5ad";
  const fs::path folder = fs::path(o.corpus) / (fs::exists(fs::path(o.corpus) / format.name) ? format.name : same);
  std::vector<fs::path> paths;
  if (!o.corpus.empty() && fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) files.push_back(load(path));
  return files;
}

/// Shared with the children.
struct Progress {
  std::uint64_t at;
  std::uint64_t count[2];
};

/// Number of findings.
std::uint64_t replay(const Format& format, const Options& o, double seconds) {
  const auto files = files_of(format, o);
  if (files.empty()) {
    std::printf("%-8s no files to start from: skipped\n", format.name);
    return 0;
  }
  const auto start = Clock::now();
  std::vector<std::vector<std::size_t>> marks;
  std::vector<Checksums> sums;
  for (const auto& f : files) {
    marks.push_back(landmarks(f));
    sums.emplace_back(format.shape == Shape::hdf5 ? f : Bytes{});
  }
  // The files themselves come first.
  const std::uint64_t n_files = files.size();
  const auto mutant = [&](std::uint64_t i) {
    if (i < n_files) return files[i];
    Dice dice(o.seed, i - n_files);
    const std::size_t k = dice.below(files.size());
    Bytes file = files[k];
    if (format.shape == Shape::store) {
      const auto change = [&dice](Bytes& content, std::size_t) { mutate(content, {0}, dice); };
      return mutate_store(file, file.size() + 4096, change, dice);
    }
    mutate(file, marks[k], dice);
    if (dice.below(4) > 0) sums[k].repair(file);
    return file;
  };
  auto* shared = static_cast<Progress*>(
      ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *shared = Progress{o.first, {0, 0}};
  std::uint64_t findings = 0;
  const std::uint64_t end = seconds > 0 ? UINT64_MAX : o.first + o.mutants + n_files;
  const auto time_is_up = [&] {
    return seconds > 0 && std::chrono::duration<double>(Clock::now() - start).count() > seconds;
  };
  while (shared->at < end && !time_is_up()) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      constexpr std::uint64_t kPerChild = 500;  // what the library leaks is given back
      const std::uint64_t stop = std::min(end, shared->at + kPerChild);
      while (shared->at < stop && !time_is_up()) {
        const Bytes file = mutant(shared->at);
        ::alarm(20);
        try {
          const auto outcome = attempt(format, file);
          ++shared->count[static_cast<int>(outcome)];
          if (outcome == Outcome::refused && shared->at < n_files) {
            std::fprintf(stderr, "%s: file %llu to start from is refused\n", format.name,
                         static_cast<unsigned long long>(shared->at));
            ::_exit(3);
          }
        } catch (const std::exception& e) {
          std::fprintf(stderr, "not a scw::Error: %s\n", e.what());
          ::_exit(3);
        }
        ++shared->at;
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    const bool hang = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    ++findings;
    std::fprintf(stderr, "%s: mutant %llu %s (status %d)\n", format.name, static_cast<unsigned long long>(shared->at),
                 hang ? "hangs" : "crashes", status);
    if (!o.keep.empty()) {
      const Bytes file = mutant(shared->at);
      std::ofstream(fs::path(o.keep) / fmt::format("{}_{}", format.name, shared->at), std::ios::binary)
          .write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
    }
    ++shared->at;
  }
  std::printf("%-8s %8llu executions in %5.1f s of %zu files: %llu read, %llu refused, %llu findings\n", format.name,
              static_cast<unsigned long long>(shared->at - o.first),
              std::chrono::duration<double>(Clock::now() - start).count(), files.size(),
              static_cast<unsigned long long>(shared->count[0]), static_cast<unsigned long long>(shared->count[1]),
              static_cast<unsigned long long>(findings));
  ::munmap(shared, sizeof(Progress));
  return findings;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (!a.starts_with("--")) {
      o.files.push_back(a);
      continue;
    }
    ++i;
    if (a == "--format")
      o.format = value;
    else if (a == "--corpus")
      o.corpus = value;
    else if (a == "--keep")
      o.keep = value;
    else if (a == "--mutants")
      o.mutants = std::strtoull(value, nullptr, 10);
    else if (a == "--first")
      o.first = std::strtoull(value, nullptr, 10);
    else if (a == "--seed")
      o.seed = std::strtoull(value, nullptr, 10);
    else if (a == "--seconds")
      o.seconds = std::strtod(value, nullptr);
    else {
      std::fprintf(stderr, "unknown option %s\n", a.c_str());
      return 2;
    }
  }
  std::uint64_t findings = 0;
  if (!o.format.empty()) {
    findings = replay(format(o.format), o, o.seconds);
  } else {
    const double share = o.seconds / static_cast<double>(formats().size());
    for (const auto& f : formats()) findings += replay(f, o, share);
  }
  return findings == 0 ? 0 : 1;
}
