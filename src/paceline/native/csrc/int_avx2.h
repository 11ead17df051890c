/* Eight 32-bit integers, or what their bytes are: AVX2 and F16C, with or without AVX-VNNI. */
#include <string.h>

#include "paceline.h"

typedef __m256i vi;

static inline vi vi_load(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vi vi_left(vi a, int count) { return _mm256_slli_epi32(a, count); }
static inline vi vi_right(vi a, int count) { return _mm256_srli_epi32(a, count); }
static inline vf vi_to_float(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vi_nearest(vf a) { return _mm256_cvtps_epi32(a); } /* ties to even */

/* The low bytes of numbers that fit, and the first lane. */
static inline void vi_store_bytes(int8_t *p, vi a) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
static inline int32_t vi_lane(vi a) { return _mm_cvtsi128_si32(_mm256_castsi256_si128(a)); }

/* To float: a lane from each float16, unsigned or signed byte. */
static inline vf vf_load_half(const char *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline vf vf_load_unsigned(const char *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vf vf_load_signed(const char *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

#ifdef HAS_DOT_BYTES
/* Signed codes reach the instruction with 128 added, which their sum starts below: see quantized.h. */
#define BYTE_OFFSET 128
static inline vi vi_signed_codes(vi a) { return _mm256_xor_si256(a, _mm256_set1_epi8((char)0x80)); }

/* sum + for each lane the `count` times four products of its codes in w with the bytes of x. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    (void)max_code;
    UNROLL for (int h = 0; h < count; h++) {
        int32_t four;
        memcpy(&four, x + 4 * h, 4);
        sum = _mm256_dpbusd_avx_epi32(sum, w[h], _mm256_set1_epi32(four));
    }
    return sum;
}
#else
#define BYTE_OFFSET 0
static inline vi vi_signed_codes(vi a) { return a; }

/* Pairs of products are added in 16 bits, which saturate: as many as codes up to `max_code` leave room for. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    const int at_once = 32767 / (2 * 127 * max_code);
    const vi ones = _mm256_set1_epi16(1);
    vi pairs = _mm256_setzero_si256();
    UNROLL for (int h = 0; h < count; h++) {
        int32_t four;
        memcpy(&four, x + 4 * h, 4);
        const vi bytes = _mm256_set1_epi32(four);
        if (max_code > 127) { /* signed: |w| times x with w's sign; 2 * 128 * 127 still fits */
            const vi products = _mm256_maddubs_epi16(_mm256_abs_epi8(w[h]), _mm256_sign_epi8(bytes, w[h]));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
            continue;
        }
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[h], bytes));
        if ((h + 1) % at_once && h + 1 < count) continue;
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
        pairs = _mm256_setzero_si256();
    }
    return sum;
}
#endif
