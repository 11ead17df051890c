/* Eight 32-bit integers in an array, for any compiler; bytes are taken from them by shifting. */
#include <string.h>

#include "paceline.h"

typedef struct {
    uint32_t lane[LANES];
} vi;

#define INT_LANEWISE(expression) \
    vi r;                        \
    EACH_LANE r.lane[i] = (expression); \
    return r

static inline vi vi_load(const char *p) {
    vi r;
    memcpy(r.lane, p, sizeof r.lane);
    return r;
}
static inline vi vi_set1(int32_t x) { INT_LANEWISE((uint32_t)x); }
static inline vi vi_add(vi a, vi b) { INT_LANEWISE(a.lane[i] + b.lane[i]); }
static inline vi vi_sub(vi a, vi b) { INT_LANEWISE(a.lane[i] - b.lane[i]); }
static inline vi vi_and(vi a, vi b) { INT_LANEWISE(a.lane[i] & b.lane[i]); }
static inline vi vi_or(vi a, vi b) { INT_LANEWISE(a.lane[i] | b.lane[i]); }
static inline vi vi_left(vi a, int count) { INT_LANEWISE(a.lane[i] << count); }
static inline vi vi_right(vi a, int count) { INT_LANEWISE(a.lane[i] >> count); }
static inline vf vi_to_float(vi a) { LANEWISE((float)(int32_t)a.lane[i]); }
static inline vi vi_nearest(vf a) { INT_LANEWISE((uint32_t)(int32_t)rintf(a.lane[i])); } /* ties to even */

/* The low bytes, and the first lane. */
static inline void vi_store_bytes(int8_t *p, vi a) { EACH_LANE p[i] = (int8_t)a.lane[i]; }
static inline int32_t vi_lane(vi a) { return (int32_t)a.lane[0]; }

static inline float half_to_float(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, fraction = x & 1023;
    if (exponent == 0) { /* zero, or fraction times 2^-24 */
        const float size = (float)fraction * 5.9604644775390625e-8f;
        return sign ? -size : size;
    }
    const uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    float r;
    memcpy(&r, &bits, sizeof r);
    return r;
}

/* To float: a lane from each float16, unsigned or signed byte. */
static inline vf vf_load_half(const char *p) {
    uint16_t halves[LANES];
    memcpy(halves, p, sizeof halves);
    LANEWISE(half_to_float(halves[i]));
}
static inline vf vf_load_unsigned(const char *p) { LANEWISE((float)(uint8_t)p[i]); }
static inline vf vf_load_signed(const char *p) { LANEWISE((float)(int8_t)p[i]); }

#define BYTE_OFFSET 0
static inline vi vi_signed_codes(vi a) { return a; }

/* sum + for each lane the `count` times four products of its codes in w with the bytes of x. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    for (int h = 0; h < count; h++)
        for (int b = 0; b < 4; b++)
            EACH_LANE {
                const uint8_t byte = (uint8_t)(w[h].lane[i] >> 8 * b);
                const int32_t code = max_code > 127 ? (int8_t)byte : byte;
                sum.lane[i] += (uint32_t)(code * x[4 * h + b]);
            }
    return sum;
}
