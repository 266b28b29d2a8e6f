// Tensor-core instructions of the search: half precision in, float sums.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace scw::pp::cuda {

inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

/// d = a (16 x 16, rows) b (16 x 8, columns) + {c0, c1, c0, c1}: every row starts from the same two columns.
__device__ inline void multiply_first(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, float c0,
                                      float c1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c0), "f"(c1));
#elif __CUDA_ARCH__ >= 750
  float e[4];
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=f"(e[0]), "=f"(e[1]), "=f"(e[2]), "=f"(e[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0), "f"(c0), "f"(c1), "f"(c0), "f"(c1));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1), "f"(e[0]), "f"(e[1]), "f"(e[2]), "f"(e[3]));
#else
  __trap();  // no tensor cores with these instructions
#endif
}

/// d += a b.
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 750
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#else
  __trap();
#endif
}

/// Four 8 x 8 tiles of halves from shared memory; lane l gives the address of row l % 8 of tile l / 8.
__device__ inline void load_tiles(unsigned (&r)[4], const __half* row) {
#if __CUDA_ARCH__ >= 750
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#else
  __trap();
#endif
}

/// Fragment of 16 rows and columns [k, k + 16) of a row-major matrix.
__device__ inline void load_rows(unsigned (&a)[4], const __half* z, std::int64_t row, std::int64_t depth, int k,
                                 int lane) {
  const __half* const at = z + (row + lane / 4) * depth + k + 2 * (lane % 4);
  a[0] = *reinterpret_cast<const unsigned*>(at);
  a[1] = *reinterpret_cast<const unsigned*>(at + 8 * depth);
  a[2] = *reinterpret_cast<const unsigned*>(at + 8);
  a[3] = *reinterpret_cast<const unsigned*>(at + 8 * depth + 8);
}

/// Accurate to 2^-22.
__device__ inline float rough_root(float v) {
  float r;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

/// Unsigned integers in the order of the floats.
__device__ inline unsigned ordered(float v) {
  const unsigned bits = __float_as_uint(v);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_ordered(unsigned v) {
  return __uint_as_float((v & 0x80000000u) != 0 ? v & 0x7FFFFFFFu : ~v);
}

}  // namespace scw::pp::cuda
