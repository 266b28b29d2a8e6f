#include <fmt/format.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <fstream>

#include "app.hpp"
#include "console.hpp"
#include "scwarp/core/kernel.hpp"
#include "scwarp/pipeline/pipeline.hpp"
#include "scwarp/version.hpp"
#include "session.hpp"

namespace scw::cli {

namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string cpu_features() {
  std::string out;
#if defined(__x86_64__)
  const auto add = [&](bool has, const char* name) {
    if (has) out += std::string(out.empty() ? "" : ", ") + name;
  };
  add(__builtin_cpu_supports("avx2") != 0, "AVX2");
  add(__builtin_cpu_supports("fma") != 0, "FMA");
  add(__builtin_cpu_supports("avx512f") != 0, "AVX-512");
#endif
  return out.empty() ? "baseline" : out;
}

/// FNV-1a over what the job made.
std::uint64_t digest(const AnnData& data) {
  std::uint64_t h = 14695981039346656037ull;
  const auto add = [&](const void* p, std::size_t n) {
    const auto* bytes = static_cast<const unsigned char*>(p);
    for (std::size_t i = 0; i < n; ++i) h = (h ^ bytes[i]) * 1099511628211ull;
  };
  for (const char* name : {"X_pca", "X_umap"})
    std::visit(
        [&](const auto& v) {
          if constexpr (requires { v.ld; })
            for (std::int64_t i = 0; i < v.n_rows; ++i)
              add(v.row(i), static_cast<std::size_t>(v.n_cols) * sizeof(*v.data));
        },
        data.obsm_matrix(name).view());
  const auto codes = data.obs.at("leiden").to_categorical().codes;
  add(codes.data(), codes.size() * sizeof(codes[0]));
  return h;
}

/// Share of the cells whose planted type is the most frequent one of their cluster.
double purity(const Categorical& clusters, const Categorical& truth) {
  std::vector<std::vector<int>> count(static_cast<std::size_t>(clusters.n_categories()),
                                      std::vector<int>(static_cast<std::size_t>(truth.n_categories())));
  for (std::size_t i = 0; i < clusters.codes.size(); ++i)
    ++count[static_cast<std::size_t>(clusters.codes[i])][static_cast<std::size_t>(truth.codes[i])];
  double sum = 0;
  for (const auto& row : count) sum += *std::max_element(row.begin(), row.end());
  return sum / static_cast<double>(clusters.codes.size());
}

struct Check {
  std::string name, detail;
  bool ok = false;
};

std::vector<Check> self_test() {
  std::vector<Check> out;
  std::uint64_t first = 0;
  for (const int threads : {1, 2}) {
    try {
      Context ctx = Context::cpu(threads);
      AnnData data = pipeline::simulated_anndata(ctx, {.n_cells = 600,
                                                       .n_genes = 1500,
                                                       .n_clusters = 4,
                                                       .doublet_rate = 0,
                                                       .damaged_rate = 0,
                                                       .mean_counts = 1500});
      pipeline::RunOptions options;
      options.n_top_genes = 500;
      pipeline::run_steps(ctx, data, pipeline::main_job(options));
      const Categorical clusters = data.obs.at("leiden").to_categorical();
      const double pure = purity(clusters, data.obs.at("cluster").to_categorical());
      const auto found = clusters.n_categories();
      if (threads == 1) {
        first = digest(data);
        out.push_back({"the main job finds planted clusters",
                       fmt::format("{} clusters for 4 planted, purity {:.3f}", found, pure),
                       found >= 4 && found <= 12 && pure > 0.95});
      } else {
        out.push_back({"the same bits with 1 and 2 threads", fmt::format("{:016x}", first), digest(data) == first});
      }
    } catch (const std::exception& e) {
      out.push_back({fmt::format("the main job on {} threads", threads), e.what(), false});
    }
  }
  return out;
}

}  // namespace

int doctor_command(const Arguments& a) {
  struct sysinfo memory {};
  sysinfo(&memory);
  const auto total = static_cast<std::int64_t>(memory.totalram) * memory.mem_unit;
  const auto free = static_cast<std::int64_t>(memory.freeram + memory.bufferram) * memory.mem_unit;
  const std::string cuda = unavailable_reason(DeviceType::cuda);
  const std::string plotly = pipeline::plotly_version();
  const std::vector<std::pair<std::string, std::string>> facts = {
      {"scwarp", kVersion},
      {"processor", fmt::format("{} ({})", cpu_name(), cpu_features())},
      {"threads", std::to_string(available_threads())},
      {"memory", fmt::format("{}, {} free", format_bytes(total), format_bytes(free))},
      {"CUDA", cuda.empty() ? "usable: " + to_string(default_device()) : "not usable: " + cuda},
      {"reports", plotly.empty() ? "no: built without Plotly.js" : "with Plotly.js " + plotly},
  };
  const auto kernels = registered_kernels();
  const auto checks = self_test();
  bool ok = true;
  for (const auto& c : checks) ok = ok && c.ok;
  if (a.json) {
    nlohmann::json j;
    for (const auto& [k, v] : facts) j["facts"][k] = v;
    for (const auto& k : kernels) j["operations"].push_back({{"name", k.name}, {"cpu", k.on[0]}, {"cuda", k.on[1]}});
    for (const auto& c : checks) j["checks"].push_back({{"name", c.name}, {"ok", c.ok}, {"detail", c.detail}});
    fmt::print("{}\n", j.dump(2));
    return ok ? kOk : kError;
  }
  for (const auto& [k, v] : facts) fmt::print("{:<12} {}\n", k, v);
  fmt::print("\n{:<52} {:>4} {:>5}\n", "operation", "cpu", "cuda");
  for (const auto& k : kernels)
    fmt::print("{:<52} {:>4} {:>5}\n", k.name, k.on[0] ? "yes" : "-", k.on[1] ? "yes" : "-");
  fmt::print("\nself-test\n");
  for (const auto& c : checks) fmt::print("  {:<6} {}: {}\n", c.ok ? "ok" : "FAILED", c.name, c.detail);
  return ok ? kOk : kError;
}

}  // namespace scw::cli
