// Logistic regression on CUDA: the objective and the L-BFGS of cpu.cpp. From the inside out:
//   products    logits and gradient of a sparse matrix     (cuda_products.cuh)
//   objective   residuals, loss, sums, the diagonal        (cuda_objective.cuh)
//   problem     an evaluation: memory and launches         (cuda_problem.cuh)
//   solver      two loops and line search                  (cuda_solver.cuh)
//
// Logits: a warp a cell; the weights of a range of genes lie in shared memory and the lanes gather from there.
// Gradient: cells are cut into tiles whose residuals fit shared memory, the entries of a tile are kept by gene (built
// once), and a warp takes a gene of a tile; sums of a tile are short chains in the type of x, tiles are added in
// double, in order. Every sum has a fixed order. Weights are held in double and gathered in the type of x.
//
// Floor of one evaluation with float x: the entries once by cell (8 bytes) and once by gene (6 bytes), 2 ms for 6e8 at
// 4.3 TB/s; the gathers, 4 bytes an entry, class and pass, take 3.3 ms for 20 classes at 128 bytes a clock and
// multiprocessor, times the bank conflicts of random rows.
#pragma once

#include <cstdint>

#include "tl/logistic_regression/cuda_solver.cuh"

namespace scw::tl::cuda {

/// One file an element type, for the time that nvcc takes.
void logistic_regression_f64(const Context& ctx, const AnyMatrixView& x, Span<const std::int32_t> codes,
                             std::int32_t n_classes, const LogisticRegressionOptions& o, LogisticRegression& out);

}  // namespace scw::tl::cuda
