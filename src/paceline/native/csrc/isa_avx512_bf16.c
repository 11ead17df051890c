#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vnni,avx512bf16")
#endif
#include "vec_avx512.h"

#define HAS_DOT_BYTES
#include "int_avx512.h"

#define HAS_DOT_PAIRS
/* sum + x.first w.first + x.second w.second, for pairs of bfloat16. */
static inline vf vf_dot_pairs(vf sum, vf x, vf w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(x), (__m512bh)_mm512_castps_si512(w));
}

#include "kernels.h"

TABLE(avx512_bf16, "avx512-bf16", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && \
      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16"));
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
