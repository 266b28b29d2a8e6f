#include "scwarp/datasets/simulate.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

#include "core/check.hpp"
#include "core/parallel.hpp"
#include "core/simd.hpp"
#include "math/elementary.hpp"
#include "math/philox.hpp"

namespace scw::datasets {

namespace {

constexpr const char* kOp = "datasets.simulate";
constexpr std::array kMitochondrial = {"MT-ND1", "MT-ND2",  "MT-CO1", "MT-CO2", "MT-ATP8", "MT-ATP6", "MT-CO3",
                                       "MT-ND3", "MT-ND4L", "MT-ND4", "MT-ND5", "MT-ND6",  "MT-CYB"};
constexpr std::int32_t kMt = static_cast<std::int32_t>(kMitochondrial.size());
constexpr int kPrograms = 4;
constexpr int kMaxMarkersPerCluster = 25;
constexpr std::int64_t kBlock = 256;  // Philox calls at once

// Purposes of the random streams.
enum Tag : std::uint64_t {
  kBase = 1,
  kLineage,
  kCluster,
  kMarker,
  kBatch,
  kBatchDepth,
  kProgram,
  kMtWeight,
  kCell,
  kDraw
};

double exp_of(double x) { return math::expm1(x) + 1.0; }

/// Standard normal by the polar method (Marsaglia & Bray 1964): logarithm and square root only.
double normal(RngKey key, std::uint64_t item, std::uint64_t draw) {
  for (std::uint64_t attempt = 0;; ++attempt) {
    const math::Philox4 r = math::random_words(key, item, (draw << 16) | attempt);
    const double a = (static_cast<double>(r.v[0]) + 0.5) * 0x1.0p-31 - 1.0;
    const double b = (static_cast<double>(r.v[1]) + 0.5) * 0x1.0p-31 - 1.0;
    const double s = a * a + b * b;
    if (s < 1.0 && s > 0.0) return a * std::sqrt(-2.0 * math::log_positive(s) / s);
  }
}

/// Walker's alias table (Vose 1991): one 32-bit word draws from any discrete distribution.
struct AliasTable {
  struct Entry {
    std::uint32_t threshold;
    std::int32_t alias;
  };
  std::vector<Entry> entries;

  explicit AliasTable(const std::vector<double>& weights = {}) : entries(weights.size()) {
    const std::size_t n = weights.size();
    double total = 0;
    for (const double w : weights) total += w;
    std::vector<double> p(n);
    std::vector<std::int32_t> small, large;
    for (std::size_t i = 0; i < n; ++i) {
      p[i] = weights[i] * static_cast<double>(n) / total;
      (p[i] < 1.0 ? small : large).push_back(static_cast<std::int32_t>(i));
    }
    while (!small.empty() && !large.empty()) {
      const auto s = static_cast<std::size_t>(small.back());
      const std::int32_t l = large.back();
      small.pop_back();
      entries[s] = {static_cast<std::uint32_t>(p[s] * 0x1.0p32), l};
      p[static_cast<std::size_t>(l)] -= 1.0 - p[s];
      if (p[static_cast<std::size_t>(l)] < 1.0) {
        large.pop_back();
        small.push_back(l);
      }
    }
    for (const auto& rest : {small, large})
      for (const std::int32_t i : rest) entries[static_cast<std::size_t>(i)] = {0xFFFFFFFFu, i};
  }

  std::int32_t operator()(std::uint32_t word) const {
    const std::uint64_t product = std::uint64_t{word} * entries.size();
    const auto i = static_cast<std::size_t>(product >> 32);
    return static_cast<std::uint32_t>(product) < entries[i].threshold ? static_cast<std::int32_t>(i) : entries[i].alias;
  }
};

/// words[w * kBlock + i] = word w of call first + i.
SCW_CLONES void fill_words(RngKey key, std::uint64_t item, std::uint64_t first, std::uint32_t* words) {
  for (std::int64_t i = 0; i < kBlock; ++i) {
    const math::Philox4 r = math::random_words(key, item, first + static_cast<std::uint64_t>(i));
    words[i] = r.v[0];
    words[kBlock + i] = r.v[1];
    words[2 * kBlock + i] = r.v[2];
    words[3 * kBlock + i] = r.v[3];
  }
}

struct Model {
  std::vector<AliasTable> profiles;  // cluster * n_batches + batch
  std::vector<AliasTable> programs;
  AliasTable mitochondrial;
  std::vector<double> cluster_cumulative;
  std::vector<double> batch_depth;
  int n_batches = 1;
};

/// What a cell is made of; a pure function of (key, cell).
struct Cell {
  int cluster, second_cluster, batch, program;
  bool is_doublet, is_damaged;
  std::int64_t n_first, n_second, n_program, n_mt;
};

Model build_model(const Context& ctx, const SimulateOptions& o, Span<std::int32_t> marker_of) {
  const RngKey key = ctx.rng;
  const std::int32_t genes = o.n_genes;
  Model m;
  m.n_batches = o.n_batches;
  // Markers: genes of the lower half of expression get lifted, so that they are nearly absent elsewhere.
  const int per_cluster = std::clamp((genes - kMt) / (4 * o.n_clusters), 1, kMaxMarkersPerCluster);
  std::fill(marker_of.begin(), marker_of.end(), -1);
  for (int c = 0; c < o.n_clusters; ++c)
    for (int k = 0; k < per_cluster; ++k) {
      const std::int64_t j = kMt + static_cast<std::int64_t>(c) * per_cluster + k;
      if (j < genes) marker_of[j] = c;
    }
  std::vector<double> base(static_cast<std::size_t>(genes));
  for (std::int32_t j = kMt; j < genes; ++j) {
    const auto item = static_cast<std::uint64_t>(j);
    const double z = std::clamp(normal(key.fold(kBase), item, 0), -3.2, 3.2);
    base[static_cast<std::size_t>(j)] = marker_of[j] >= 0 ? exp_of(-1.5 + 0.3 * z) : exp_of(2.2 * z);
  }

  double total = 0;
  for (int c = 0; c < o.n_clusters; ++c) {
    total += exp_of(-0.6 * math::log_positive(c + 1.0));
    m.cluster_cumulative.push_back(total);
  }
  for (double& v : m.cluster_cumulative) v /= total;
  for (int b = 0; b < o.n_batches; ++b)
    m.batch_depth.push_back(
        o.n_batches == 1 ? 1.0 : exp_of(0.15 * normal(key.fold(kBatchDepth), static_cast<std::uint64_t>(b), 0)));

  m.profiles.resize(static_cast<std::size_t>(checked_mul(o.n_clusters, o.n_batches)));
  parallel_for(ctx, static_cast<std::int64_t>(m.profiles.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const auto cluster = static_cast<std::uint64_t>(t / o.n_batches),
                 batch = static_cast<std::uint64_t>(t % o.n_batches);
      const std::uint64_t lineage = cluster / 3;
      std::vector<double> w(base);
      for (std::int32_t j = kMt; j < genes; ++j) {
        const auto item = static_cast<std::uint64_t>(j);
        double effect = 0;
        if (math::random_uniform(key.fold(kLineage), item, 2 * lineage) < 0.05)
          effect += 0.8 + 0.5 * normal(key.fold(kLineage), item, 2 * lineage + 1);
        if (math::random_uniform(key.fold(kCluster), item, 2 * cluster) < 0.03)
          effect += 0.9 + 0.6 * normal(key.fold(kCluster), item, 2 * cluster + 1);
        if (marker_of[j] == static_cast<std::int32_t>(cluster))
          effect += 5.2 + 0.5 * normal(key.fold(kMarker), item, 0);
        if (o.n_batches > 1) effect += 0.2 * normal(key.fold(kBatch), item, batch);
        w[static_cast<std::size_t>(j)] *= exp_of(effect);
      }
      m.profiles[static_cast<std::size_t>(t)] = AliasTable(w);
    }
  });
  for (std::uint64_t p = 0; p < kPrograms; ++p) {
    std::vector<double> w(base);
    for (std::int32_t j = kMt; j < genes; ++j) {
      const auto item = static_cast<std::uint64_t>(j);
      const bool in = marker_of[j] < 0 && math::random_uniform(key.fold(kProgram), item, p) < 0.05;
      w[static_cast<std::size_t>(j)] *= in ? 1.0 : 0.01;
    }
    m.programs.emplace_back(w);
  }
  std::vector<double> mt(kMt);
  for (std::size_t j = 0; j < mt.size(); ++j) mt[j] = exp_of(0.8 * normal(key.fold(kMtWeight), j, 0));
  m.mitochondrial = AliasTable(mt);
  return m;
}

Cell describe_cell(RngKey key, const Model& m, const SimulateOptions& o, std::int64_t index) {
  key = key.fold(kCell);
  const auto item = static_cast<std::uint64_t>(index);
  const auto uniform = [&](std::uint64_t draw) { return math::random_uniform(key, item, draw); };
  const auto pick = [&](double u) {
    return static_cast<int>(std::min<std::ptrdiff_t>(
        o.n_clusters - 1,
        std::upper_bound(m.cluster_cumulative.begin(), m.cluster_cumulative.end(), u) - m.cluster_cumulative.begin()));
  };
  Cell c{};
  c.cluster = pick(uniform(0));
  c.second_cluster = pick(uniform(1));
  c.batch =
      static_cast<int>(math::bounded(math::random_words(key, item, 2).v[0], static_cast<std::uint32_t>(o.n_batches)));
  c.is_doublet = uniform(3) < o.doublet_rate;
  c.is_damaged = !c.is_doublet && uniform(4) < o.damaged_rate;
  c.program = static_cast<int>(math::bounded(math::random_words(key, item, 5).v[0], kPrograms));
  const double strength = 0.12 * uniform(6) * uniform(6);
  double mt = std::min(0.12, 0.035 * exp_of(0.35 * normal(key, item, 7)));
  const auto depth = [&](std::uint64_t draw) {  // log-normal with mean 1
    return exp_of(0.35 * normal(key, item, draw) - 0.06125) * m.batch_depth[static_cast<std::size_t>(c.batch)];
  };
  double first = o.mean_counts * depth(8);
  if (c.is_damaged) {
    first *= 0.35;
    mt = 0.15 + 0.4 * uniform(9);
  }
  const double second = c.is_doublet ? o.mean_counts * depth(10) * 0.8 : 0.0;
  const auto whole = [](double x) { return static_cast<std::int64_t>(x + 0.5); };
  c.n_mt = whole((first + second) * mt);
  c.n_program = whole(first * (1 - mt) * strength);
  c.n_first = std::max<std::int64_t>(1, whole(first * (1 - mt) * (1 - strength)));
  c.n_second = whole(second * (1 - mt));
  return c;
}

/// Calls hit(gene) once per UMI.
template <class Hit>
void draw_cell(RngKey key, const Model& m, const Cell& c, std::int64_t index, std::uint32_t* words, Hit hit) {
  key = key.fold(kDraw);
  std::uint64_t call = 0;
  std::int64_t used = 4 * kBlock;
  const auto draw = [&](const AliasTable& table, std::int64_t n) {
    while (n > 0) {
      if (used == 4 * kBlock) {
        fill_words(key, static_cast<std::uint64_t>(index), call, words);
        call += kBlock;
        used = 0;
      }
      const std::int64_t take = std::min(n, 4 * kBlock - used);
      for (std::int64_t i = 0; i < take; ++i) hit(table(words[used + i]));
      used += take;
      n -= take;
    }
  };
  draw(m.profiles[static_cast<std::size_t>(c.cluster * m.n_batches + c.batch)], c.n_first);
  draw(m.profiles[static_cast<std::size_t>(c.second_cluster * m.n_batches + c.batch)], c.n_second);
  draw(m.programs[static_cast<std::size_t>(c.program)], c.n_program);
  draw(m.mitochondrial, c.n_mt);
}

}  // namespace

Simulated simulate(const Context& ctx, const SimulateOptions& o) {
  SCW_EXPECT(o.n_cells >= 0 && o.n_cells <= 0x7FFFFFFF, kOp, "n_cells must be in [0, 2^31) (got {})", o.n_cells);
  SCW_EXPECT(o.n_genes >= 50, kOp, "n_genes must be at least 50 (got {})", o.n_genes);
  SCW_EXPECT(o.n_clusters >= 1 && o.n_clusters <= (o.n_genes - kMt) / 4, kOp,
             "n_clusters must be in [1, n_genes / 4] (got {})", o.n_clusters);
  SCW_EXPECT(o.n_batches >= 1, kOp, "n_batches must be positive (got {})", o.n_batches);
  SCW_EXPECT(o.doublet_rate >= 0 && o.doublet_rate < 1, kOp, "doublet_rate must be in [0, 1) (got {})", o.doublet_rate);
  SCW_EXPECT(o.damaged_rate >= 0 && o.damaged_rate < 1, kOp, "damaged_rate must be in [0, 1) (got {})", o.damaged_rate);
  SCW_EXPECT(o.mean_counts > 0 && o.mean_counts < 1e9, kOp, "mean_counts must be in (0, 1e9) (got {})", o.mean_counts);
  const Context host = ctx.host();
  const auto& memory = host_memory();
  const std::int64_t n = o.n_cells;

  Simulated out;
  out.n_mitochondrial = kMt;
  out.marker_of = Array<std::int32_t>(memory, o.n_genes, "simulated markers");
  out.cluster = Array<std::int32_t>(memory, n, "simulated cells");
  out.batch = Array<std::int32_t>(memory, n, "simulated cells");
  out.is_doublet = Array<std::uint8_t>(memory, n, "simulated cells");
  out.is_damaged = Array<std::uint8_t>(memory, n, "simulated cells");
  const Model model = build_model(host, o, out.marker_of.view());

  // Every cell is drawn twice, first to count its genes, then to write them: no memory beyond the result.
  out.counts.n_rows = n;
  out.counts.n_cols = o.n_genes;
  out.counts.indptr = Array<std::int64_t>(memory, n + 1, "simulated counts");
  out.counts.indptr[0] = 0;
  const auto mask_words = static_cast<std::size_t>((o.n_genes + 63) / 64);
  struct Scratch {
    std::vector<std::uint64_t> mask;
    std::vector<std::uint32_t> count;
    std::vector<std::uint32_t> words;
  };
  std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, host.n_threads)));
  for (auto& s : scratch) {
    s.mask.assign(mask_words, 0);
    s.count.assign(static_cast<std::size_t>(o.n_genes), 0);
    s.words.assign(4 * kBlock, 0);
  }
  std::int64_t done = 0;
  const std::int64_t batch_of_work = 1 << 14;  // between two progress reports
  const auto all_cells = [&](auto&& body) {
    for (std::int64_t first = 0; first < n; first += batch_of_work) {
      const std::int64_t count = std::min(batch_of_work, n - first);
      parallel_chunks(host, count, 64, [&](std::int64_t, std::int64_t begin, std::int64_t end, int worker) {
        for (std::int64_t i = first + begin; i < first + end; ++i) body(i, scratch[static_cast<std::size_t>(worker)]);
      });
      ctx.report("simulate", done += count, 2 * n);
    }
  };
  all_cells([&](std::int64_t i, Scratch& s) {
    const Cell cell = describe_cell(ctx.rng, model, o, i);
    out.cluster[i] = cell.cluster;
    out.batch[i] = cell.batch;
    out.is_doublet[i] = cell.is_doublet ? 1 : 0;
    out.is_damaged[i] = cell.is_damaged ? 1 : 0;
    draw_cell(ctx.rng, model, cell, i, s.words.data(),
              [&](std::int32_t g) { s.mask[static_cast<std::size_t>(g) >> 6] |= std::uint64_t{1} << (g & 63); });
    std::int64_t nnz = 0;
    for (auto& word : s.mask) {
      nnz += std::popcount(word);
      word = 0;
    }
    out.counts.indptr[i + 1] = nnz;
  });
  for (std::int64_t i = 0; i < n; ++i) out.counts.indptr[i + 1] += out.counts.indptr[i];
  const std::int64_t nnz = out.counts.indptr[n];
  out.counts.indices = Array<std::int32_t>(memory, nnz, "simulated counts");
  out.counts.values = Array<float>(memory, nnz, "simulated counts");
  all_cells([&](std::int64_t i, Scratch& s) {
    draw_cell(ctx.rng, model, describe_cell(ctx.rng, model, o, i), i, s.words.data(), [&](std::int32_t g) {
      s.mask[static_cast<std::size_t>(g) >> 6] |= std::uint64_t{1} << (g & 63);
      ++s.count[static_cast<std::size_t>(g)];
    });
    std::int64_t at = out.counts.indptr[i];
    for (std::size_t w = 0; w < mask_words; ++w) {
      for (std::uint64_t word = s.mask[w]; word != 0; word &= word - 1) {
        const std::size_t g = w * 64 + static_cast<std::size_t>(std::countr_zero(word));
        out.counts.indices[at] = static_cast<std::int32_t>(g);
        out.counts.values[at] = static_cast<float>(s.count[g]);
        s.count[g] = 0;
        ++at;
      }
      s.mask[w] = 0;
    }
  });
  return out;
}

std::string simulated_gene_name(const Simulated& data, std::int64_t gene) {
  if (gene < kMt) return kMitochondrial[static_cast<std::size_t>(gene)];
  const std::int32_t cluster = data.marker_of[gene];
  if (cluster < 0) return fmt::format("GENE{:05}", gene);
  std::int64_t first = gene;
  while (data.marker_of[first - 1] == cluster) --first;
  return fmt::format("MK{:02}-{:02}", cluster, gene - first + 1);
}

std::string simulated_cell_name(std::int64_t cell) { return fmt::format("CELL{:07}", cell + 1); }

}  // namespace scw::datasets
