/* Eight floats in an array, for any compiler: what it makes of the loops is its own affair, the rounding is not. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 8
#define WIDE_ROWS 2
#define WIDE_VECS 2
#define SLIM_ROWS 1
#define SLIM_VECS 4
#define QUANTIZED_ROWS 2 /* of quantised weights */
#define QUANTIZED_SLIM_ROWS 0 /* up to so many take two vectors of columns */
#define ACCUMULATORS 4 /* vectors that attention sums in registers */

typedef struct {
    float lane[LANES];
} vf;

#define EACH_LANE for (int i = 0; i < LANES; i++)
#define LANEWISE(expression) \
    vf r;                    \
    EACH_LANE r.lane[i] = (expression); \
    return r

static inline float bf16_to_float(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float r;
    memcpy(&r, &bits, sizeof r);
    return r;
}

static inline uint16_t float_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline vf vf_set1(float x) { LANEWISE(x); }
static inline vf vf_load(const float *p) { LANEWISE(p[i]); }
static inline void vf_store(float *p, vf a) { EACH_LANE p[i] = a.lane[i]; }
static inline vf vf_add(vf a, vf b) { LANEWISE(a.lane[i] + b.lane[i]); }
static inline vf vf_sub(vf a, vf b) { LANEWISE(a.lane[i] - b.lane[i]); }
static inline vf vf_mul(vf a, vf b) { LANEWISE(a.lane[i] * b.lane[i]); }
static inline vf vf_div(vf a, vf b) { LANEWISE(a.lane[i] / b.lane[i]); }
/* Two roundings: without the instruction, a fused one would cost a call. */
static inline vf vf_fma(vf a, vf b, vf c) { LANEWISE(a.lane[i] * b.lane[i] + c.lane[i]); }
/* Rounds once, whatever it costs: quantised products have the same bits everywhere. */
static inline vf vf_fused(vf a, vf b, vf c) { LANEWISE(fmaf(a.lane[i], b.lane[i], c.lane[i])); }
static inline vf vf_sqrt(vf a) { LANEWISE(sqrtf(a.lane[i])); }
/* Where one of them is NaN, the second. */
static inline vf vf_max(vf a, vf b) { LANEWISE(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline vf vf_min(vf a, vf b) { LANEWISE(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline vf vf_round(vf a) { LANEWISE(rintf(a.lane[i])); }
static inline vf vf_abs(vf a) { LANEWISE(fabsf(a.lane[i])); }
/* a < b ? yes : no */
static inline vf vf_select_less(vf a, vf b, vf yes, vf no) {
    LANEWISE(a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i]);
}
/* 2^n for integral n in [-126, 127]; anything for a NaN. */
static inline vf vf_pow2(vf n) {
    vf r;
    EACH_LANE {
        float clean = n.lane[i] == n.lane[i] ? n.lane[i] : 0.0f;
        uint32_t bits = (uint32_t)((int32_t)clean + 127) << 23;
        memcpy(&r.lane[i], &bits, sizeof bits);
    }
    return r;
}

static inline vf vf_load_bf16(const uint16_t *p) { LANEWISE(bf16_to_float(p[i])); }
static inline void vf_store_bf16(uint16_t *p, vf a) { EACH_LANE p[i] = float_to_bf16(a.lane[i]); }

/* The first, or the second, of each of a vector's worth of pairs of bfloat16. */
static inline vf vf_load_first(const char *p) { LANEWISE(bf16_to_float(((const uint16_t *)p)[2 * i])); }
static inline vf vf_load_second(const char *p) { LANEWISE(bf16_to_float(((const uint16_t *)p)[2 * i + 1])); }

/* A vector's worth of pairs of bfloat16, and the first, or the second, of each. */
static inline vf vf_load_pairs(const char *p) {
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}
static inline float bf16_of(float pair, int is_second) {
    uint16_t parts[2];
    memcpy(parts, &pair, sizeof pair);
    return bf16_to_float(parts[is_second]);
}
static inline vf vf_first(vf pairs) { LANEWISE(bf16_of(pairs.lane[i], 0)); }
static inline vf vf_second(vf pairs) { LANEWISE(bf16_of(pairs.lane[i], 1)); }

/* The sum of all lanes: each half added to the other, until one lane is left. */
static inline float vf_sum(vf a) {
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) a.lane[i] += a.lane[i + half];
    return a.lane[0];
}

/* The largest lane. */
static inline float vf_highest(vf a) {
    float highest = a.lane[0];
    EACH_LANE highest = a.lane[i] > highest ? a.lane[i] : highest;
    return highest;
}

/* Lane i of vector j becomes lane j of vector i. */
static inline void vf_transpose(vf *a) {
    for (int i = 0; i < LANES; i++) {
        for (int j = 0; j < i; j++) {
            const float kept = a[i].lane[j];
            a[i].lane[j] = a[j].lane[i];
            a[j].lane[i] = kept;
        }
    }
}
