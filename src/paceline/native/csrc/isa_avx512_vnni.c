#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni")
#endif
#include "vec_avx512.h"

#define HAS_DOT_BYTES
#include "int_avx512.h"

#include "kernels.h"

TABLE(avx512_vnni, "avx512-vnni", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
