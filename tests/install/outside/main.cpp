// A program that knows nothing but the installed headers.
#include <cmath>
#include <cstdio>
#include <vector>

#include <scwarp/core/context.hpp>
#include <scwarp/pp/log1p.hpp>
#include <scwarp/pp/normalize_total.hpp>

int main() {
  std::vector<std::int64_t> indptr{0, 2, 3};
  std::vector<std::int32_t> indices{0, 2, 1};
  std::vector<float> values{1, 3, 5};
  const scw::Context ctx = scw::Context::cpu(1);
  const scw::CsrView<float> x(2, 3, indptr, indices, values);
  scw::pp::normalize_total(ctx, x, {.target_sum = 8});
  scw::pp::log1p(ctx, x);
  const double want[] = {std::log(3.0), std::log(7.0), std::log(9.0)};
  bool ok = true;
  for (int i = 0; i < 3; ++i) ok = ok && std::abs(values[static_cast<std::size_t>(i)] - want[i]) < 1e-6;
  try {
    scw::pp::log1p(ctx, x, {.base = -1});
    return 1;
  } catch (const scw::InvalidArgument& e) {
    std::printf("outside program: %s; %s\n", ok ? "right" : "WRONG", e.what());
  }
  return ok ? 0 : 1;
}
