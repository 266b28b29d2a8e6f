// Shared by cpu.cpp and cuda.cu.

namespace scw::pp {

/// NaN stays NaN: both comparisons are false.
SCW_HD inline double clip_to(double z, double low, double high) {
  const double below = z > high ? high : z;
  return below < low ? low : below;
}

/// (x - mean) / std; mean 0 gives x / std exactly.
SCW_HD inline double scaled_value(double x, double mean, double std, double low, double high) {
  return clip_to((x - mean) / std, low, high);
}

}  // namespace scw::pp
