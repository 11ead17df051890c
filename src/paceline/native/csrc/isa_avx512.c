#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw")
#endif
#include "vec_avx512.h"

#include "int_avx512.h"

#include "kernels.h"

TABLE(avx512, "avx512", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
