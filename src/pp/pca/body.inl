// Shared by pca.cpp, cpu.cpp and cuda.cu: the value that is decomposed.

namespace scw::pp {

/// z of a value x of the gene at position p among the genes in use.
SCW_HD inline double transformed(const GeneTransform& t, double x, std::int64_t p) {
  if (t.center == nullptr) return x;
  const double z = (x - t.center[p]) * t.inverse_scale[p];
  return z > t.max_value ? t.max_value : (z < -t.max_value ? -t.max_value : z);
}

}  // namespace scw::pp
