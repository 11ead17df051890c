/* Sixteen 32-bit integers, or what their bytes are: AVX-512 F and BW, with or without VNNI. */
#include <string.h>

#include "paceline.h"

typedef __m512i vi;

static inline vi vi_load(const char *p) { return _mm512_loadu_si512((const void *)p); }
static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
static inline vi vi_left(vi a, int count) { return _mm512_slli_epi32(a, (unsigned)count); }
static inline vi vi_right(vi a, int count) { return _mm512_srli_epi32(a, (unsigned)count); }
static inline vf vi_to_float(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vi_nearest(vf a) { return _mm512_cvtps_epi32(a); } /* ties to even */

/* The low bytes, and the first lane. */
static inline void vi_store_bytes(int8_t *p, vi a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }
static inline int32_t vi_lane(vi a) { return _mm_cvtsi128_si32(_mm512_castsi512_si128(a)); }

/* To float: a lane from each float16, unsigned or signed byte. */
static inline vf vf_load_half(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline vf vf_load_unsigned(const char *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vf vf_load_signed(const char *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

#ifdef HAS_DOT_BYTES
/* Signed codes reach the instruction with 128 added, which their sum starts below: see quantized.h. */
#define BYTE_OFFSET 128
static inline vi vi_signed_codes(vi a) { return _mm512_xor_si512(a, _mm512_set1_epi8((char)0x80)); }

/* sum + for each lane the `count` times four products of its codes in w with the bytes of x. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    (void)max_code;
    UNROLL for (int h = 0; h < count; h++) {
        int32_t four;
        memcpy(&four, x + 4 * h, 4);
        sum = _mm512_dpbusd_epi32(sum, w[h], _mm512_set1_epi32(four));
    }
    return sum;
}
#else
#define BYTE_OFFSET 0
static inline vi vi_signed_codes(vi a) { return a; }

/* Pairs of products are added in 16 bits, which saturate: as many as codes up to `max_code` leave room for. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    const int at_once = 32767 / (2 * 127 * max_code);
    const vi ones = _mm512_set1_epi16(1);
    vi pairs = _mm512_setzero_si512();
    UNROLL for (int h = 0; h < count; h++) {
        int32_t four;
        memcpy(&four, x + 4 * h, 4);
        const vi bytes = _mm512_set1_epi32(four);
        if (max_code > 127) { /* signed: |w| times x with w's sign */
            const vi negated = _mm512_mask_sub_epi8(bytes, _mm512_movepi8_mask(w[h]), _mm512_setzero_si512(), bytes);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(_mm512_abs_epi8(w[h]), negated), ones));
            continue;
        }
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[h], bytes));
        if ((h + 1) % at_once && h + 1 < count) continue;
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
        pairs = _mm512_setzero_si512();
    }
    return sum;
}
#endif
