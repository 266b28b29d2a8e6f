#include "scwarp/pipeline/pipeline.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/built_on.hpp"
#include "core/check.hpp"
#include "pipeline/format.hpp"
#include "scwarp/core/kernel.hpp"

namespace scw::pipeline {

std::string format_count(std::int64_t n) {
  const std::string digits = std::to_string(n < 0 ? -n : n);
  std::string out = n < 0 ? "-" : "";
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ' ';
    out += digits[i];
  }
  return out;
}

std::string format_number(double v) {
  if (std::abs(v) < 1e15 && v == std::floor(v)) return format_count(static_cast<std::int64_t>(v));
  if (std::abs(v) >= 1000 && std::abs(v) < 1e15) return format_count(std::llround(v));
  return fmt::format("{:.4g}", v);
}

std::string python_float(double v) {
  std::string out = fmt::format("{}", v);
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}

std::int64_t Shape::matrix_bytes() const {
  if (!sparse) return checked_mul(checked_mul(n_obs, n_vars), value_bytes);
  return checked_add(checked_mul(nnz, 4 + value_bytes), checked_mul(n_obs + 1, 8));
}

Shape shape_of(const AnnData& data) {
  Shape s;
  s.n_obs = data.n_obs();
  s.n_vars = data.n_vars();
  if (!data.X) return s;
  s.sparse = data.X->is_sparse();
  s.value_bytes = data.X->data.index() % 2 == 0 ? 4 : 8;
  std::visit(
      [&](const auto& m) {
        if constexpr (requires { m.indices; })
          s.nnz = m.indices.size();
        else
          s.nnz = m.n_rows * m.n_cols;
      },
      data.X->data);
  return s;
}

namespace {

/// The memory that a step works in, for its peak.
TrackedMemory& tracked(const Context& ctx) {
  auto* memory = dynamic_cast<TrackedMemory*>(ctx.memory.get());
  return memory != nullptr ? *memory : *host_memory();
}

std::vector<PlannedStep> plan_steps(const Steps& steps, const Shape& shape, int n_threads) {
  std::vector<PlannedStep> out;
  std::int64_t held = shape.streamed ? 0 : shape.matrix_bytes();
  for (const auto& step : steps) {
    out.push_back({step->name(), held, checked_add(held, step->peak_bytes(shape, n_threads))});
    held = checked_add(held, step->kept_bytes(shape));
  }
  return out;
}

/// Whether there is room for X beside what the steps allocate. Else X stays on the host and is streamed.
bool fits(const Shape& shape, const std::vector<PlannedStep>& steps, std::int64_t bytes) {
  return shape.matrix_bytes() <= bytes &&
         std::all_of(steps.begin(), steps.end(), [&](const PlannedStep& s) { return s.peak_bytes <= bytes; });
}

bool fits_device(const Context& ctx, const AnnData& data, const Steps& steps) {
  Shape shape = shape_of(data);
  shape.device = ctx.device.type;
  return fits(shape, plan_steps(steps, shape, 1), available_bytes(ctx));
}

}  // namespace

std::vector<ReportStep> run_steps(const Context& ctx, AnnData& data, const Steps& steps, StepObserver* observer) {
  std::vector<ReportStep> out;
  const auto run = [&](const std::string& name, const auto& body) {
    ctx.check_cancelled(name.c_str());
    if (observer != nullptr) observer->started(name);
    tracked(ctx).reset_peak();
    const auto start = std::chrono::steady_clock::now();
    ReportStep record;
    record.name = name;
    record.summary = body();
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    record.peak_bytes = static_cast<std::int64_t>(tracked(ctx).peak_bytes());
    if (observer != nullptr) observer->finished(record);
    out.push_back(std::move(record));
  };
  const bool elsewhere = ctx.device != Device{};
  if (elsewhere)
    run("upload", [&] {
      if (!fits_device(ctx, data, steps))
        return fmt::format("X stays on the host and is streamed: {} has {} MB for this job", to_string(ctx.device),
                           format_count(available_bytes(ctx) / 1'000'000));
      data.to_device(ctx);
      return fmt::format("X is on {}", to_string(ctx.device));
    });
  for (const auto& step : steps)
    run(step->name(), [&] {
      std::string summary = step->run(ctx, data);
      ctx.synchronize();
      return summary;
    });
  if (elsewhere)
    run("download", [&] {
      data.to_host(ctx);
      return std::string("every matrix is on the host");
    });
  return out;
}

std::vector<std::string> missing_operations(const RunOptions& options, DeviceType device) {
  std::vector<std::string> out;
  const auto kernels = registered_kernels();
  for (const auto& step : main_job(options))
    for (const std::string& operation : step->operations())
      for (const std::string& part : parts_of(operation))
        for (const KernelInfo& kernel : kernels) {
          const bool needed = kernel.name == part || kernel.name.starts_with(part + ":");
          if (needed && !kernel.on[static_cast<int>(device)] &&
              std::find(out.begin(), out.end(), kernel.name) == out.end())
            out.push_back(kernel.name);
        }
  return out;
}

std::vector<PlannedStep> plan(const RunOptions& options, const Shape& shape, int n_threads) {
  const Steps steps = main_job(options);
  std::vector<PlannedStep> out = plan_steps(steps, shape, n_threads);
  if (shape.device != DeviceType::cpu && shape.limit_bytes > 0 && !fits(shape, out, shape.limit_bytes)) {
    Shape streamed = shape;
    streamed.streamed = true;
    out = plan_steps(steps, streamed, n_threads);
  }
  // Reading: the matrix, one chunk per thread, and integers or CSC that are converted.
  const std::int64_t matrix = shape.matrix_bytes();
  out.insert(out.begin(), {"read", 0, matrix + matrix / 8 + n_threads * (std::int64_t{4} << 20)});
  return out;
}

}  // namespace scw::pipeline
