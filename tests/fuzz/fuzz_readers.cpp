// Feeds damaged files to the readers: each must end in data or in a scw::Error. Deterministic: mutant i of a run with
// the same seed and files is always the same bytes.
//
//   fuzz_readers [--format h5ad|10x|mtx|table] [--mutants N] [--first I] [--seed S] [--keep FOLDER] [FILE ...]
//
// Without files it writes its own (10x: give some; mtx: the three texts of a folder, with a form feed between them).
// Work is done in child processes, so that a crash, a sanitizer report or a hang (over 20 s) is counted, the mutant
// named and kept, and the run goes on. Exit code 1 if there was any.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "math/philox.hpp"
#include "scwarp/io/h5ad.hpp"
#include "scwarp/io/tenx.hpp"
#include "scwarp/io/text.hpp"

/// The HDF5 library asks for what a damaged file declares and copes with a refusal; the sanitizer must not stop it.
extern "C" SCW_API const char* __asan_default_options() { return "allocator_may_return_null=1:detect_leaks=0"; }

namespace {

using Bytes = std::vector<std::byte>;

/// Numbers of one mutant.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t mutant) : seed_(seed), mutant_(mutant) {}
  std::uint64_t next() { return scw::math::random_u64(scw::RngKey{seed_, 0}, mutant_, n_++); }
  std::size_t below(std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(next() % n); }

 private:
  std::uint64_t seed_, mutant_;
  std::uint64_t n_ = 0;
};

/// Offsets of structures of the file format, where damage hurts most.
std::vector<std::size_t> landmarks(const Bytes& file) {
  std::vector<std::size_t> at{0};
  for (const char* mark : {"TREE", "SNOD", "HEAP", "GCOL", "OHDR", "FRHP", "FHDB", "BTHD", "BTLF", "encoding-type",
                           "shape", "column-order", "deflate", "categories"}) {
    const std::size_t n = std::strlen(mark);
    for (std::size_t i = 0; i + n <= file.size(); ++i)
      if (std::memcmp(file.data() + i, mark, n) == 0) at.push_back(i);
  }
  return at;
}

void mutate(Bytes& file, const std::vector<std::size_t>& marks, Dice& dice) {
  const auto place = [&] {
    if (dice.below(2) == 0) return dice.below(file.size());
    const std::size_t mark = marks[dice.below(marks.size())];
    const std::size_t reach = 256;
    const std::size_t first = mark > reach / 4 ? mark - reach / 4 : 0;
    return std::min(file.size() - 1, first + dice.below(reach));
  };
  constexpr std::uint64_t kValues[] = {0,          1,          2,          7,
                                       0x7F,       0xFF,       0xFFFF,     0x7FFFFFFF,
                                       0xFFFFFFFF, 0x80000000, 1ULL << 40, 0x7FFFFFFFFFFFFFFF,
                                       ~0ULL,      ~0ULL - 7,  1ULL << 63, 0x2000000000000001};
  const std::size_t times = 1 + dice.below(dice.below(3) == 0 ? 16 : 3);
  for (std::size_t k = 0; k < times && !file.empty(); ++k) {
    const std::size_t at = place();
    switch (dice.below(8)) {
      case 0:
        file[at] ^= static_cast<std::byte>(1U << dice.below(8));
        break;
      case 1:
        file[at] = static_cast<std::byte>(dice.below(256));
        break;
      case 2:
      case 3: {  // an integer of 1, 2, 4 or 8 bytes, aligned like the format's
        const std::size_t n = std::size_t{1} << dice.below(4), where = at / n * n;
        const std::uint64_t v = dice.below(4) == 0 ? dice.next() : kValues[dice.below(std::size(kValues))];
        std::memcpy(file.data() + where, &v, std::min(n, file.size() - where));
        break;
      }
      case 4: {  // plus or minus a little
        std::uint32_t v = 0;
        const std::size_t n = std::min<std::size_t>(4, file.size() - at);
        std::memcpy(&v, file.data() + at, n);
        v += static_cast<std::uint32_t>(dice.below(65)) - 32;
        std::memcpy(file.data() + at, &v, n);
        break;
      }
      case 5: {  // a piece from elsewhere
        const std::size_t from = place(), n = 1 + dice.below(64);
        for (std::size_t i = 0; i < n && at + i < file.size() && from + i < file.size(); ++i)
          file[at + i] = file[from + i];
        break;
      }
      case 6: {
        const std::size_t n = std::min(1 + dice.below(256), file.size() - at);
        std::fill_n(file.begin() + static_cast<std::ptrdiff_t>(at), n, std::byte{0});
        break;
      }
      default:
        if (dice.below(4) == 0) file.resize(at);
        break;
    }
  }
}

/// What happened to one mutant.
enum class Outcome : int { read, refused, foreign_exception };

scw::AnnData read(const std::string& format, const Bytes& file) {
  const auto ctx = scw::Context::cpu(1);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (format == "table") return scw::io::read_text(ctx, text, "mutant");
  if (format == "10x") return scw::io::read_10x_h5(ctx, scw::Span<const std::byte>(file), "mutant");
  if (format == "mtx") {
    const std::size_t one = std::min(text.find('\f'), text.size());
    const std::size_t two = std::min(text.find('\f', std::min(one + 1, text.size())), text.size());
    return scw::io::read_10x_mtx(ctx, text.substr(0, one),
                                 text.substr(std::min(one + 1, two), two - std::min(one + 1, two)),
                                 text.substr(std::min(two + 1, text.size())));
  }
  scw::io::ReadH5adOptions options;
  options.check_counts = true;
  return scw::io::read_h5ad(ctx, scw::Span<const std::byte>(file), "mutant", options);
}

Outcome attempt(const std::string& format, const Bytes& file) {
  try {
    read(format, file).validate();
    return Outcome::read;
  } catch (const scw::Error&) {
    return Outcome::refused;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "not a scw::Error: %s\n", e.what());
    return Outcome::foreign_exception;
  }
}

/// A table, or the three texts of a 10x folder.
Bytes example_text(const std::string& format) {
  std::string text;
  const auto add = std::back_inserter(text);
  if (format == "table") {
    text = "cell,MT-ND1";
    for (int j = 1; j < 20; ++j) fmt::format_to(add, ",\"gene {}\"", j);
    for (int i = 0; i < 30; ++i) {
      fmt::format_to(add, "\ncell{}", i);
      for (int j = 0; j < 20; ++j) fmt::format_to(add, ",{}{}", (i * j) % 7, j % 5 == 0 ? ".5e-1" : "");
    }
  } else {
    text = "%%MatrixMarket matrix coordinate integer general\n%\n20 30 150\n";
    for (int i = 0; i < 30; ++i)
      for (int j = 0; j < 5; ++j) fmt::format_to(add, "{} {} {}\n", (i + 4 * j) % 20 + 1, i + 1, i * j + 1);
    for (int i = 0; i < 30; ++i) fmt::format_to(add, "{}AACG{}-1\n", i == 0 ? "\f" : "", i);
    for (int j = 0; j < 20; ++j) fmt::format_to(add, "{}ENSG{}\tGENE{}\tGene Expression\n", j == 0 ? "\f" : "", j, j);
  }
  Bytes out(text.size());
  std::memcpy(out.data(), text.data(), text.size());
  return out;
}

scw::AnnData example(const scw::Context& ctx) {
  using namespace scw;
  constexpr std::int64_t n = 40, m = 12;
  AnnData a;
  std::vector<std::string> cells, labels;
  for (std::int64_t i = 0; i < n; ++i) {
    cells.push_back("cell" + std::to_string(i));
    labels.push_back(i % 2 == 0 ? "a" : "b");
  }
  a.obs = DataFrame(cells);
  a.var = DataFrame(m);
  Csr<float> x;
  x.n_rows = n;
  x.n_cols = m;
  x.indptr = Array<std::int64_t>(ctx.memory, n + 1);
  x.indices = Array<std::int32_t>(ctx.memory, n * 3);
  x.values = Array<float>(ctx.memory, n * 3);
  for (std::int64_t i = 0; i <= n; ++i) x.indptr[i] = i * 3;
  for (std::int64_t p = 0; p < n * 3; ++p) {
    x.indices[p] = static_cast<std::int32_t>(p % 3 * 4 + p % 2);
    x.values[p] = static_cast<float>(p % 5 + 1);
  }
  std::sort(x.indices.begin(), x.indices.begin() + 3);
  MatrixElement csc = MatrixElement(std::move(x)).clone(ctx);
  a.set_X(csc.clone(ctx));
  csc.stored_layout = StoredLayout::csc;
  csc.stored_dtype = "int32";
  a.set_layer("counts", std::move(csc));
  Matrix<float> pca(ctx.memory, n, 8);
  for (std::int64_t i = 0; i < n * 8; ++i) pca.data[i] = static_cast<float>(i);
  a.set_obsm("X_pca", std::move(pca));
  a.obs.set("label", Categorical::from_labels(labels));
  a.obs.set("text", labels);
  a.obs.set("x", std::vector<double>(n, 0.5));
  a.obs.set("flag", Bools{std::vector<std::uint8_t>(n, 1)});
  Column nullable(std::vector<std::int64_t>(n, 5));
  nullable.missing = std::vector<std::uint8_t>(n, 0);
  a.obs.set("nullable", std::move(nullable));
  StructArray names;
  names.n_rows = 2;
  names.fields.emplace_back("0", std::vector<std::string>{"MS4A1", "CD79A"});
  names.fields.emplace_back("1", std::vector<std::string>{"GNLY", "NKG7"});
  a.uns["rank_genes_groups"]["names"] = names;
  a.uns["pca"]["variance"] = std::vector<double>{2.0, 1.0};
  a.uns["text"] = "t";
  a.uns["texts"] = std::vector<std::string>{"a", "b"};
  a.set_raw_from_X(ctx);
  return a;
}

Bytes load(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  Bytes out(text.size());
  std::memcpy(out.data(), text.data(), text.size());
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t mutants = 1000, first = 0, seed = 1;
  std::string keep, format = "h5ad";
  std::vector<Bytes> files;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--mutants" && i + 1 < argc) {
      mutants = std::strtoull(argv[++i], nullptr, 10);
    } else if (a == "--first" && i + 1 < argc) {
      first = std::strtoull(argv[++i], nullptr, 10);
    } else if (a == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (a == "--format" && i + 1 < argc) {
      format = argv[++i];
    } else if (a == "--keep" && i + 1 < argc) {
      keep = argv[++i];
    } else {
      files.push_back(load(a));
    }
  }
  if (files.empty() && (format == "mtx" || format == "table")) files.push_back(example_text(format));
  if (files.empty() && format == "h5ad") {
    const auto ctx = scw::Context::cpu(1);
    for (const int level : {0, 1}) {
      const auto path = std::filesystem::temp_directory_path() / ("fuzz_seed_" + std::to_string(::getpid()) + ".h5ad");
      scw::io::WriteH5adOptions options;
      options.compression_level = level;
      scw::io::write_h5ad(ctx, example(ctx), path.string(), options);
      files.push_back(load(path));
      std::filesystem::remove(path);
    }
  }
  for (const auto& f : files)
    if (attempt(format, f) != Outcome::read) {
      std::fprintf(stderr, "a file to start from cannot be read\n");
      return 2;
    }
  if (files.empty()) {
    std::fprintf(stderr, "format %s: give files to start from\n", format.c_str());
    return 2;
  }
  std::vector<std::vector<std::size_t>> marks;
  for (const auto& f : files) marks.push_back(landmarks(f));
  const auto mutant = [&](std::uint64_t i) {
    Dice dice(seed, i);
    const std::size_t k = dice.below(files.size());
    Bytes file = files[k];
    mutate(file, marks[k], dice);
    return file;
  };

  struct Progress {
    std::uint64_t at;
    std::uint64_t count[3];
  };
  auto* shared = static_cast<Progress*>(
      ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *shared = Progress{first, {0, 0, 0}};
  std::uint64_t crashes = 0, hangs = 0;
  const std::uint64_t end = first + mutants;
  while (shared->at < end) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      constexpr std::uint64_t kPerChild = 500;  // what the library leaks is given back
      const std::uint64_t stop = std::min(end, shared->at + kPerChild);
      while (shared->at < stop) {
        const Bytes file = mutant(shared->at);
        ::alarm(20);
        const auto outcome = attempt(format, file);
        ++shared->count[static_cast<int>(outcome)];
        if (outcome == Outcome::foreign_exception) ::_exit(3);
        ++shared->at;
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    const bool hang = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    ++(hang ? hangs : crashes);
    std::fprintf(stderr, "mutant %llu: %s (status %d)\n", static_cast<unsigned long long>(shared->at),
                 hang ? "hangs" : "crashes", status);
    if (!keep.empty()) {
      const Bytes file = mutant(shared->at);
      std::ofstream(std::filesystem::path(keep) / ("mutant_" + std::to_string(shared->at) + ".h5ad"), std::ios::binary)
          .write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
    }
    ++shared->at;
  }
  std::printf("%llu mutants of %zu files: %llu read, %llu refused, %llu other exceptions, %llu crashes, %llu hangs\n",
              static_cast<unsigned long long>(mutants), files.size(), static_cast<unsigned long long>(shared->count[0]),
              static_cast<unsigned long long>(shared->count[1]), static_cast<unsigned long long>(shared->count[2]),
              static_cast<unsigned long long>(crashes), static_cast<unsigned long long>(hangs));
  return crashes + hangs == 0 ? 0 : 1;
}
