// Shared by cpu.cpp and cuda.cu.

#include <cmath>

namespace scw::pp {

struct PearsonCell {
  double share, clip, inverse_theta;
  bool keep_nan;

  /// Residual of value x for a gene with the given sum.
  SCW_HD double operator()(double x, double gene_sum) const {
    const double mu = gene_sum * share;
    const double z = (x - mu) / ::sqrt(mu + mu * mu * inverse_theta);
    const double below = z > clip ? clip : z;
    const double inside = below < -clip ? -clip : below;
    return z != z && !keep_nan ? 0.0 : inside;
  }
};

}  // namespace scw::pp
