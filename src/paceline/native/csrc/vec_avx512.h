/* Sixteen floats in a register: AVX-512 F and BW. */
#include <immintrin.h>
#include <stdint.h>

#define LANES 16
#define WIDE_ROWS 8 /* with more, the rows' addresses no longer fit the integer registers: 8 % slower */
#define WIDE_VECS 2
#define SLIM_ROWS 4
#define SLIM_VECS 2
#define QUANTIZED_ROWS 8 /* of quantised weights */
#define QUANTIZED_SLIM_ROWS 4 /* up to so many take two vectors of columns */
#define ACCUMULATORS 24 /* vectors that attention sums in registers */

typedef __m512 vf;

static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
#define vf_fused vf_fma /* rounds once */
static inline vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
/* Where one of them is NaN, the second. */
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
/* a < b ? yes : no */
static inline vf vf_select_less(vf a, vf b, vf yes, vf no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
/* 2^n for integral n in [-126, 127]. */
static inline vf vf_pow2(vf n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}

static inline vf vf_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* To nearest, ties to even; a NaN stays one. */
static inline void vf_store_bf16(uint16_t *p, vf a) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(rounded));
}

/* The first, or the second, of each of a vector's worth of pairs of bfloat16. */
static inline vf vf_load_first(const char *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512((const void *)p), 16));
}
static inline vf vf_load_second(const char *p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512((const void *)p), _mm512_set1_epi32((int)0xffff0000)));
}

/* A vector's worth of pairs of bfloat16, and the first, or the second, of each. */
static inline vf vf_load_pairs(const char *p) { return _mm512_castsi512_ps(_mm512_loadu_si512((const void *)p)); }
static inline vf vf_first(vf pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16)); }
static inline vf vf_second(vf pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32((int)0xffff0000)));
}

/* The sum of all lanes: each half added to the other, until one lane is left. */
static inline float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }

/* The largest lane. */
static inline float vf_highest(vf a) { return _mm512_reduce_max_ps(a); }

/* Lane i of vector j becomes lane j of vector i. */
static inline void vf_transpose(vf *a) {
    vf b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    vf c[LANES];
    for (int i = 0; i < LANES; i += 4) {
        c[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
        c[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
        c[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
        c[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) { /* quarter q of the four vectors becomes vector 4 q + i */
        const vf even = _mm512_shuffle_f32x4(c[i], c[i + 4], 0x88), odd = _mm512_shuffle_f32x4(c[i], c[i + 4], 0xdd);
        const vf last_even = _mm512_shuffle_f32x4(c[i + 8], c[i + 12], 0x88);
        const vf last_odd = _mm512_shuffle_f32x4(c[i + 8], c[i + 12], 0xdd);
        a[i] = _mm512_shuffle_f32x4(even, last_even, 0x88);
        a[i + 4] = _mm512_shuffle_f32x4(odd, last_odd, 0x88);
        a[i + 8] = _mm512_shuffle_f32x4(even, last_even, 0xdd);
        a[i + 12] = _mm512_shuffle_f32x4(odd, last_odd, 0xdd);
    }
}
