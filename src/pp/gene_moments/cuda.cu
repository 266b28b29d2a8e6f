// The same integers as cpu.cpp, so the same bits. Counts: one read of the matrix, bound by memory (floor: its bytes
// over the memory bandwidth). Other values: about six shared-memory atomics an entry, 8 to 12 ms for 2e9 entries on an
// H200; with expm1 another 50 double operations an entry. Values that do not fit the scale 2^31: one more read before.
#include "pp/gene_moments/passes.cuh"

namespace scw::pp::cuda {
namespace {

/// Ends a pass over a source whose blocks may be expensive (a file, residuals).
struct Stop {};

struct Runner {
  const Context& ctx;
  const RowBlocks& x;
  const GeneMomentsOptions& options;
  std::int64_t genes, groups;
  cudaStream_t stream = scw::cuda::stream_of(ctx);
  Array<std::uint64_t> sums{ctx.workspace, checked_mul(checked_mul(groups, genes), 4), "gene sums", ctx.stream};
  Array<unsigned> seen{ctx.workspace, 1, "gene sums: seen", ctx.stream};

  template <class T>
  void clear(Array<T>& a) const {
    if (a.size() > 0) SCW_CUDA(cudaMemsetAsync(a.data(), 0, static_cast<std::size_t>(a.size()) * sizeof(T), stream));
  }
  template <class T>
  T read(const Array<T>& a) const {
    T value{};
    copy_bytes(ctx, &value, Device{}, a.data(), ctx.device, sizeof(T));
    return value;
  }

  /// before(view, order) decides on a pass (or throws Stop) for every block.
  template <class Before>
  void run(Pass pass, const Before& before) {
    clear(seen);
    pass.target = {sums.data(), genes, seen.data()};
    pass.expm1 = options.expm1;
    pass.expm1_scale = options.expm1_scale;
    x.for_each(ctx, [&](std::int64_t first_row, const AnyMatrixView& block) {
      std::visit(
          [&](const auto& v) {
            if (v.n_rows == 0) return;
            prim::cuda::GroupedRows grouped;
            if (!options.groups.empty())
              grouped = prim::cuda::group_rows(ctx, options.groups.subspan(first_row, v.n_rows), options.n_groups);
            const auto order = prim::cuda::row_order(grouped, v.n_rows, options.n_groups);
            run_pass(ctx, v, order, before(v, order, pass), pass, nullptr);
          },
          block);
    });
  }

  /// False if a value does not fit the scale that is tried first; the sums are then worthless.
  bool exact(GeneSums& out) {
    bool decided = false;
    PassKind kind = PassKind::uniform;
    for (;;) {
      clear(sums);
      bool first = true;
      try {
        run({}, [&](const auto& v, const auto& order, const Pass& pass) {
          if (!first && (read(seen) & (kInexact | kUnsuited)) != 0) throw Stop{};
          first = false;
          if (!decided) {
            const Sample s = sample(v, order, pass);
            if (s.inexact != 0) throw Stop{};
            if (!options.expm1 && s.not_whole == 0 && std::uint64_t{s.large} * 100 <= s.n) kind = PassKind::counts;
            decided = true;
          }
          return kind;
        });
      } catch (const Stop&) {
        if (!decided) return false;
      }
      const unsigned bits = read(seen);
      if ((bits & kInexact) != 0) return false;
      if ((bits & kUnsuited) == 0) {
        out.counts = (bits & kNotCounts) == 0;
        return true;
      }
      kind = PassKind::uniform;
    }
  }

  template <class X>
  Sample sample(const X& v, const prim::cuda::RowOrder& order, const Pass& pass) {
    Array<Sample> s(ctx.workspace, 1, "gene sums: sample", ctx.stream);
    clear(s);
    run_pass(ctx, v, order, PassKind::sample, pass, s.data());
    return read(s);
  }

  void scaled(GeneSums& out) {
    Array<unsigned long long> largest(ctx.workspace, genes, "gene maxima", ctx.stream);
    clear(largest);
    Pass pass{};
    pass.largest = largest.data();
    run(pass, [](const auto&, const auto&, const Pass&) { return PassKind::largest; });
    out.counts = (read(seen) & kNotCounts) == 0;
    std::vector<unsigned long long> max(static_cast<std::size_t>(genes));
    copy_bytes(ctx, max.data(), Device{}, largest.data(), ctx.device, max.size() * sizeof(max[0]));
    std::vector<std::int16_t> shift(max.size());
    for (std::size_t j = 0; j < max.size(); ++j) {
      out.finite[j] = max[j] < 0x7FF0000000000000ull ? 1 : 0;
      out.scale[j] = prim::FixedScale::for_max(out.finite[j] != 0 ? math::from_bits(max[j]) : 0.0);
      shift[j] = out.finite[j] != 0 ? static_cast<std::int16_t>(out.scale[j].shift) : kNotFinite;
    }
    Array<std::int16_t> shifts(ctx.workspace, genes, "gene scales", ctx.stream);
    copy_bytes(ctx, shifts.data(), ctx.device, shift.data(), Device{}, shift.size() * sizeof(shift[0]));
    pass.shifts = shifts.data();
    clear(sums);
    run(pass, [](const auto&, const auto&, const Pass&) { return PassKind::per_column; });
  }
};

}  // namespace

void gene_sums(const Context& ctx, const RowBlocks& x, const GeneMomentsOptions& options, GeneSums& out) {
  const scw::cuda::DeviceScope scope(ctx);
  static_assert(sizeof(prim::FixedMoments) == 4 * sizeof(std::uint64_t));
  Runner runner{ctx, x, options, x.n_cols(), options.n_groups};
  if (options.groups.empty())
    out.n_rows.assign(static_cast<std::size_t>(options.n_groups), options.n_groups == 1 ? x.n_rows() : 0);
  else
    out.n_rows = prim::cuda::group_sizes(ctx, options.groups, options.n_groups);
  out.scale.assign(static_cast<std::size_t>(runner.genes), prim::FixedScale(kGeneMomentsShift));
  out.finite.assign(static_cast<std::size_t>(runner.genes), 1);
  if (!runner.exact(out)) runner.scaled(out);
  out.sums = Array<prim::FixedMoments>(host_memory(), checked_mul(runner.groups, runner.genes), "gene sums");
  copy_bytes(ctx, out.sums.data(), Device{}, runner.sums.data(), ctx.device,
             static_cast<std::size_t>(out.sums.size()) * sizeof(prim::FixedMoments));
}

SCW_REGISTER(gene_sums_kernel, cuda, &gene_sums);

}  // namespace scw::pp::cuda
