#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif
#include "vec_avx2.h"

#define HAS_DOT_BYTES
#include "int_avx2.h"

#include "kernels.h"

TABLE(avx2_vnni, "avx2-vnni", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("avxvnni"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
