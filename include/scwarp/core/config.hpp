// Compiler-facing macros shared by every public header.
#pragma once

// Everything is built with hidden visibility; what users link against is marked.
#define SCW_API __attribute__((visibility("default")))

// Functions of src/math/ are compiled by the host compiler and, in .cu files, for the device as well.
#ifdef __CUDACC__
#define SCW_HD __host__ __device__
#else
#define SCW_HD
#endif
