#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include "vec_avx2.h"

#include "int_avx2.h"

#include "kernels.h"

TABLE(avx2, "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
