/* Loading and storing rows of floats; included after a vec_*.h, whose vectors it uses. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "paceline.h"


/* To the second level: the next block would crowd the current one out of the first. */
static inline void prefetch(const char *p) { __builtin_prefetch(p, 0, 2); }

/* Stands in for the maximum of nothing: finite, so that differences are. */
#define LOWEST (-FLT_MAX)

static inline int64_t width_of(int64_t dtype) { return dtype == BF16 ? 2 : dtype == F32 ? 4 : dtype == I64 ? 8 : 1; }

/* The index in [0, count) that is nearest to one that may lie anywhere: no token makes a kernel read outside. */
static inline int64_t clamped(int64_t index, int64_t count) {
    return index < 0 ? 0 : index < count ? index : count - 1;
}

/* A sum in MAX_LANES lanes, whatever a vector has: its bits are the same on every instruction set with fused
 * multiply-adds. Then across, halving the lanes, as vf_sum goes on. */
#define SUM_VECS (MAX_LANES / LANES)
typedef struct {
    vf lanes[SUM_VECS];
} WideSum;

INLINE float sum_across(WideSum sum) {
    for (int half = SUM_VECS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) sum.lanes[i] = vf_add(sum.lanes[i], sum.lanes[i + half]);
    return vf_sum(sum.lanes[0]);
}

/* `count` contiguous values to float32. The odd end goes through the same instructions as the rest. */
static void load_floats(float *to, const char *from, int64_t dtype, int64_t count) {
    if (dtype == I64) {
        for (int64_t i = 0; i < count; i++) to[i] = (float)((const int64_t *)from)[i];
        return;
    }
    if (dtype == F32) {
        memcpy(to, from, (size_t)count * 4);
        return;
    }
    if (dtype == BYTES) { /* truth values */
        for (int64_t i = 0; i < count; i++) to[i] = (float)(from[i] != 0);
        return;
    }
    const uint16_t *values = (const uint16_t *)from;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) vf_store(to + i, vf_load_bf16(values + i));
    if (i < count) {
        uint16_t end[LANES] = {0};
        float wide[LANES];
        memcpy(end, values + i, (size_t)(count - i) * 2);
        vf_store(wide, vf_load_bf16(end));
        memcpy(to + i, wide, (size_t)(count - i) * 4);
    }
}

/* `count` floats to contiguous float32 or, rounded to nearest even, bfloat16; or to truth values. */
static void store_floats(char *to, int64_t dtype, const float *from, int64_t count) {
    if (dtype == F32) {
        memcpy(to, from, (size_t)count * 4);
        return;
    }
    if (dtype == BYTES) {
        for (int64_t i = 0; i < count; i++) to[i] = from[i] != 0.0f;
        return;
    }
    uint16_t *values = (uint16_t *)to;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) vf_store_bf16(values + i, vf_load(from + i));
    if (i < count) {
        float wide[LANES] = {0};
        uint16_t end[LANES];
        memcpy(wide, from + i, (size_t)(count - i) * 4);
        vf_store_bf16(end, vf_load(wide));
        memcpy(values + i, end, (size_t)(count - i) * 2);
    }
}
