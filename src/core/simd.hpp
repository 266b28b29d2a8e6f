// SCW_CLONES: compile a hot loop for baseline x86-64, AVX2 and AVX-512 and choose at load time. The library is built
// with -ffp-contract=off, so all versions of a loop of independent lanes give the same bits.
#pragma once

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define SCW_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define SCW_CLONES  // ifunc resolvers run before the sanitizers are ready
#endif
