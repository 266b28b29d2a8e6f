#include "scwarp/io/h5ad.hpp"

#include <unistd.h>

#include <filesystem>
#include <string>

#include "micro/data.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::bench {
namespace {

/// A gzip file of 10 000 cells x 10 000 genes in the temporary folder, removed at the end.
class File {
 public:
  File()
      : data(pipeline::simulated_anndata(Context::cpu(), {.n_cells = 10000, .n_genes = 10000, .n_clusters = 10})),
        path_(std::filesystem::temp_directory_path() / ("scwarp-bench-" + std::to_string(::getpid()) + ".h5ad")) {
    io::write_h5ad(Context::cpu(), data, path());
  }
  ~File() { std::filesystem::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return path_.string(); }
  std::int64_t size() const { return static_cast<std::int64_t>(std::filesystem::file_size(path_)); }

  const AnnData data;

 private:
  std::filesystem::path path_;
};

const File& file() {
  static const File f;
  return f;
}

void read_h5ad(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& f = file();
  for (auto _ : state) benchmark::DoNotOptimize(io::read_h5ad(ctx, f.path()));
  state.SetBytesProcessed(state.iterations() * f.size());
}
SCW_BENCHMARK(read_h5ad);

void write_h5ad(benchmark::State& state) {
  const Context ctx = context(state);
  const auto& f = file();
  const std::string path = f.path() + ".copy";
  for (auto _ : state) io::write_h5ad(ctx, f.data, path);
  std::filesystem::remove(path);
  state.SetBytesProcessed(state.iterations() * f.size());
}
SCW_BENCHMARK(write_h5ad);

}  // namespace
}  // namespace scw::bench
