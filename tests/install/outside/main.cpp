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
  const bool ok = values[0] == std::log1p(2.0f) && values[1] == std::log1p(6.0f) && values[2] == std::log1p(8.0f);
  try {
    scw::pp::log1p(ctx, x, {.base = -1});
    return 1;
  } catch (const scw::InvalidArgument& e) {
    std::printf("outside program: %s; %s\n", ok ? "right" : "WRONG", e.what());
  }
  return ok ? 0 : 1;
}
