// scwarp._core.memory: the numbers and switches behind scwarp.memory.
#include "bind.hpp"
#include "core/backend.hpp"
#include "scwarp/estimate.hpp"
#include "scwarp/pipeline/pipeline.hpp"

namespace scw::python {
namespace {

/// Device memory that Python functions allocate: RMM's or CuPy's own pool.
class PythonMemory final : public MemoryResource {
 public:
  PythonMemory(Device device, nb::object allocate, nb::object deallocate)
      : device_(device), allocate_(std::move(allocate)), deallocate_(std::move(deallocate)) {}
  ~PythonMemory() override {
    const nb::gil_scoped_acquire gil;
    allocate_.reset();
    deallocate_.reset();
  }
  Device device() const override { return device_; }
  void* allocate(std::size_t bytes, StreamHandle stream, const char* tag) override {
    const nb::gil_scoped_acquire gil;
    try {
      return reinterpret_cast<void*>(
          nb::cast<std::uintptr_t>(allocate_(bytes, reinterpret_cast<std::uintptr_t>(stream.handle))));
    } catch (nb::python_error& e) {
      if (!e.matches(PyExc_MemoryError)) throw;
      throw OutOfMemory("the outside allocator refused " + std::to_string(bytes) + " bytes for '" + tag + "'");
    }
  }
  void deallocate(void* p, std::size_t bytes, StreamHandle stream) noexcept override {
    const nb::gil_scoped_acquire gil;
    try {
      deallocate_(reinterpret_cast<std::uintptr_t>(p), bytes, reinterpret_cast<std::uintptr_t>(stream.handle));
    } catch (nb::python_error& e) {
      e.discard_as_unraisable("scwarp.memory");
    }
  }

 private:
  Device device_;
  nb::object allocate_, deallocate_;
};

nb::dict holders_of(const TrackedMemory& memory) {
  nb::dict out;
  for (const MemoryHolder& h : memory.holders()) out[nb::cast(h.tag)] = h.bytes;
  return out;
}

nb::dict info(const std::string& name) {
  const Device device = parse_device(name);
  const auto memory = device_memory(device);
  nb::dict out;
  if (device.type != DeviceType::cpu) {
    const auto m = scw::detail::backend_hooks(device.type).memory_info(device.id);
    out["total"] = m.total;
    out["free"] = m.free;
    out["pool_held"] = m.pool_held;
    out["pool_used"] = m.pool_used;
    out["pinned"] = m.pinned;
  }
  out["used"] = memory->used_bytes();
  out["peak"] = memory->peak_bytes();
  out["limit"] = memory->limit_bytes();
  out["by_tag"] = holders_of(*memory);
  const auto cache = DeviceCache::instance().numbers();
  nb::dict c;
  c["bytes"] = cache.bytes;
  c["entries"] = cache.entries;
  c["hits"] = cache.hits;
  c["uploads"] = cache.uploads;
  c["uploaded_bytes"] = cache.uploaded_bytes;
  out["cache"] = c;
  return out;
}

}  // namespace

/// An option that a size depends on: counts are not negative.
template <typename T>
T option_of(const std::string& name, const nb::object& value) {
  constexpr bool is_count = std::is_integral_v<T> && !std::is_same_v<T, bool>;
  const std::string kind = is_count                         ? "an integer"
                           : std::is_same_v<T, bool>        ? "True or False"
                           : std::is_same_v<T, std::string> ? "a name"
                                                            : "a number";
  const auto wrong = [&](const std::string& what) {
    return InvalidArgument("memory.estimate: " + name + " must " + what + " (got " + nb::repr(value).c_str() + ")");
  };
  T out{};
  if (!nb::try_cast<T>(value, out)) throw wrong("be " + kind);
  if constexpr (is_count)
    if (out < 0) throw wrong("not be negative");
  return out;
}

/// Peak and kept bytes of an operation by its Python name, with the options that its size depends on.
std::pair<std::int64_t, std::int64_t> estimate_of(const std::string& op, const std::string& device, int n_threads,
                                                  std::int64_t n_rows, std::int64_t n_cols, std::int64_t nnz,
                                                  int value_bytes, bool sparse, const nb::dict& options, bool in_file,
                                                  std::int64_t block_bytes, std::int64_t limit_bytes) {
  namespace est = scw::estimate;
  const est::Shape s{parse_device(device).type,
                     n_threads,
                     n_rows,
                     n_cols,
                     nnz,
                     value_bytes,
                     sparse,
                     in_file,
                     block_bytes,
                     limit_bytes};
  nb::list unknown(options);
  const auto get = [&](const char* name, auto fallback) {
    if (!options.contains(name)) return fallback;
    for (std::size_t i = 0; i < nb::len(unknown); ++i)
      if (nb::cast<std::string>(unknown[i]) == name) {
        unknown.attr("pop")(i);
        break;
      }
    const nb::object value = options[name];
    return value.is_none() ? fallback : option_of<decltype(fallback)>(name, value);
  };
  const auto get_one_of = [&](const char* name, const char* fallback, std::initializer_list<const char*> known) {
    const auto value = get(name, std::string(fallback));
    std::string names;
    for (const char* k : known) {
      if (value == k) return value;
      names += std::string(names.empty() ? "" : ", ") + k;
    }
    throw InvalidArgument("memory.estimate: " + std::string(name) + " must be one of " + names + " (got '" + value +
                          "')");
  };
  using std::int64_t;
  const auto need = [&]() -> est::Need {
    if (op == "pp.calculate_qc_metrics")
      return est::calculate_qc_metrics(s, get("n_families", 0), get("n_tops", 4), get("largest_top", int64_t{500}));
    if (op == "pp.filter_cells") return est::cell_counts(s);
    if (op == "pp.filter_genes") return est::gene_counts(s);
    if (op == "pp.subset") {
      const auto rows = get("kept_rows", n_rows), cols = get("kept_cols", n_cols);
      return est::subset(s, rows, cols, get("kept_values", nnz));
    }
    if (op == "pp.normalize_total")
      return est::normalize_total(s, get("target_sum", 0.0) > 0, get("exclude_highly_expressed", false));
    if (op == "pp.log1p") return est::log1p(s);
    if (op == "pp.sqrt") return est::sqrt(s);
    if (op == "pp.gene_moments") return est::gene_moments(s, get("n_groups", int64_t{1}));
    if (op == "pp.highly_variable_genes")
      return est::highly_variable_genes(s,
                                        get_one_of("flavor", "seurat",
                                                   {"seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper",
                                                    "pearson_residuals", "poisson_gene_selection"})
                                            .starts_with("seurat_v3"),
                                        get("n_batches", int64_t{0}));
    if (op == "pp.scale") {
      const bool centred = get("zero_center", true);
      return est::scale(s, sparse && centred, get("masked", false));
    }
    if (op == "pp.regress_out") return est::regress_out(s, get("n_keys", int64_t{1}));
    if (op == "pp.normalize_pearson_residuals") return est::normalize_pearson_residuals(s);
    if (op == "pp.pca")
      return est::pca(s, std::min(get("n_comps", int64_t{50}), std::min(n_rows, n_cols)), get("scale", false));
    if (op == "pp.neighbors") {  // the search, then the graph beside its lists
      const auto k = std::min(get("n_neighbors", int64_t{15}), n_rows);
      const est::Need lists = est::knn(s, k), graph = est::connectivities(s.device, n_rows, k);
      if (get("lists_only", false)) return lists;
      return {std::max(lists.peak, lists.kept + graph.peak + 8 * (n_rows + 1) + 8 * n_rows * (k - 1)), graph.kept};
    }
    if (op == "tl.leiden") return est::leiden(s, get("n_resolutions", int64_t{1}));
    if (op == "tl.umap") return est::umap(s, get("n_components", int64_t{2}));
    if (op == "get.aggregate")
      return est::aggregate(s, get("n_groups", int64_t{10}), get("n_functions", 1), get("count_nonzero", false),
                            get("median", false));
    if (op == "tl.score_genes") return est::score_genes(s);
    if (op == "tl.rank_genes_groups") {
      const auto method =
          get_one_of("method", "t-test", {"t-test", "t-test_overestim_var", "wilcoxon", "wilcoxon_binned", "logreg"});
      const auto test = method == "logreg"               ? est::Test::logreg
                        : method.starts_with("wilcoxon") ? est::Test::wilcoxon
                                                         : est::Test::t_test;
      return est::rank_genes_groups(s, test, get("n_groups", int64_t{10}), get("with_reference", false));
    }
    throw InvalidArgument("memory.estimate: no estimate for '" + op + "'");
  }();
  if (nb::len(unknown) > 0)
    throw InvalidArgument("memory.estimate: '" + op + "' has no size option '" + nb::cast<std::string>(unknown[0]) +
                          "'");
  return {need.peak, need.kept};
}

SCW_PYTHON(memory, memory) {
  m.def("estimate", &estimate_of, nb::arg("op"), nb::arg("device"), nb::arg("n_threads"), nb::arg("n_rows"),
        nb::arg("n_cols"), nb::arg("nnz"), nb::arg("value_bytes"), nb::arg("sparse"), nb::arg("options"),
        nb::arg("in_file") = false, nb::arg("block_bytes") = 0, nb::arg("limit_bytes") = 0,
        "(peak, kept) bytes of an operation beyond its arguments.");
  m.def("info", &info, nb::arg("device"));
  m.def(
      "set_limit",
      [](const std::string& device, std::size_t limit) { device_memory(parse_device(device))->set_limit_bytes(limit); },
      nb::arg("device"), nb::arg("limit_bytes"));
  m.def(
      "use_driver",
      [](const std::string& name, std::size_t pool_bytes, bool managed) {
        const Device device = parse_device(name);
        const auto memory = device_memory(device);
        memory->set_upstream(scw::detail::backend_hooks(device.type).make_resource(device.id, {pool_bytes, managed}));
      },
      nb::arg("device"), nb::arg("pool_bytes"), nb::arg("managed"));
  m.def(
      "use_functions",
      [](const std::string& name, nb::object allocate, nb::object deallocate) {
        const Device device = parse_device(name);
        device_memory(device)->set_upstream(
            std::make_shared<PythonMemory>(device, std::move(allocate), std::move(deallocate)));
      },
      nb::arg("device"), nb::arg("allocate"), nb::arg("deallocate"),
      "allocate(bytes, stream) -> address and deallocate(address, bytes, stream).");
  m.def(
      "allocate",
      [](const std::string& device, std::size_t bytes, std::uintptr_t stream, const std::string& tag) {
        // Tags are kept as pointers: the ones given here live for ever.
        static auto* tags = new std::vector<std::unique_ptr<std::string>>;
        const char* kept = nullptr;
        for (const auto& t : *tags)
          if (*t == tag) kept = t->c_str();
        if (kept == nullptr) kept = tags->emplace_back(std::make_unique<std::string>(tag))->c_str();
        return reinterpret_cast<std::uintptr_t>(
            device_memory(parse_device(device))->allocate(bytes, {reinterpret_cast<void*>(stream)}, kept));
      },
      nb::arg("device"), nb::arg("bytes"), nb::arg("stream"), nb::arg("tag"));
  m.def(
      "deallocate",
      [](const std::string& device, std::uintptr_t p, std::size_t bytes, std::uintptr_t stream) {
        device_memory(parse_device(device))
            ->deallocate(reinterpret_cast<void*>(p), bytes, {reinterpret_cast<void*>(stream)});
      },
      nb::arg("device"), nb::arg("address"), nb::arg("bytes"), nb::arg("stream"));
  m.def(
      "release",
      [](const std::string& name) {
        DeviceCache::instance().clear();
        const Device device = parse_device(name);
        if (device.type != DeviceType::cpu) scw::detail::backend_hooks(device.type).release(device.id);
      },
      nb::arg("device"), "Empties the cache and gives unused memory back to the driver.");
  m.def(
      "plan",
      [](std::int64_t n_obs, std::int64_t n_vars, std::int64_t nnz, int value_bytes, bool sparse, int n_threads,
         const std::string& device, std::int64_t limit_bytes) {
        const pipeline::Shape shape{n_obs, n_vars, nnz, value_bytes, sparse, parse_device(device).type, limit_bytes};
        nb::list out;
        for (const auto& s : pipeline::plan({}, shape, n_threads == 0 ? available_threads() : n_threads))
          out.append(nb::make_tuple(s.name, s.held_bytes, s.peak_bytes));
        return out;
      },
      nb::arg("n_obs"), nb::arg("n_vars"), nb::arg("nnz"), nb::arg("value_bytes"), nb::arg("sparse"),
      nb::arg("n_threads"), nb::arg("device"), nb::arg("limit_bytes") = 0,
      "[(step, bytes held before, bytes at the peak)] of the main job with default options.");
}

}  // namespace scw::python
