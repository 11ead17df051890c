#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include "vec_avx2.h"

#include "kernels.h"

TABLE(avx2, "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
