// Shared by cpu.cpp and cuda.cu.

namespace scw {

/// Defects of entry k of a row that begins at `begin`.
SCW_HD inline std::int32_t column_defects(const std::int32_t* columns, std::int64_t k, std::int64_t begin,
                                          std::int32_t n_cols) {
  const std::int32_t j = columns[k];
  std::int32_t d = j < 0 || j >= n_cols ? kColumnOutOfRange : 0;
  if (k > begin && columns[k - 1] >= j) d |= kUnsortedColumns;
  return d;
}

}  // namespace scw
