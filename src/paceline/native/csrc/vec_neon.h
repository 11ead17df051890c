/* Four floats in a register: NEON, which every 64-bit ARM has. */
#include <arm_neon.h>
#include <stdint.h>

#define LANES 4
#define WIDE_ROWS 5
#define WIDE_VECS 4
#define SLIM_ROWS 2
#define SLIM_VECS 8
#define QUANTIZED_ROWS 8 /* of quantised weights */
#define QUANTIZED_SLIM_ROWS 0 /* up to so many take two vectors of columns */
#define ACCUMULATORS 24 /* vectors that attention sums in registers */

typedef float32x4_t vf;

static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf a) { vst1q_f32(p, a); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
#define vf_fused vf_fma /* rounds once */
static inline vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
/* Where one of them is NaN, the second. */
static inline vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vf_round(vf a) { return vrndnq_f32(a); }
static inline vf vf_abs(vf a) { return vabsq_f32(a); }
/* a < b ? yes : no */
static inline vf vf_select_less(vf a, vf b, vf yes, vf no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
/* 2^n for integral n in [-126, 127]. */
static inline vf vf_pow2(vf n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)), 23));
}

static inline vf vf_load_bf16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

/* To nearest, ties to even; a NaN stays one. */
static inline void vf_store_bf16(uint16_t *p, vf a) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(a, a), rounded, vdupq_n_u32(0x7fc0))));
}

/* A vector's worth of pairs of bfloat16, and the first, or the second, of each. */
static inline vf vf_load_pairs(const char *p) { return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); }
static inline vf vf_first(vf pairs) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pairs), 16)); }
static inline vf vf_second(vf pairs) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xffff0000)));
}
static inline vf vf_load_first(const char *p) { return vf_first(vf_load_pairs(p)); }
static inline vf vf_load_second(const char *p) { return vf_second(vf_load_pairs(p)); }

/* The sum of all lanes: each half added to the other, until one lane is left. */
static inline float vf_sum(vf a) {
    const float32x2_t half = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(half, half), 0);
}

/* The largest lane. */
static inline float vf_highest(vf a) {
    float lanes[LANES], highest;
    vst1q_f32(lanes, a);
    highest = lanes[0];
    for (int i = 1; i < LANES; i++) highest = lanes[i] > highest ? lanes[i] : highest;
    return highest;
}

/* Lane i of vector j becomes lane j of vector i. */
static inline void vf_transpose(vf *a) {
    const float32x4x2_t low = vtrnq_f32(a[0], a[1]), high = vtrnq_f32(a[2], a[3]);
    a[0] = vcombine_f32(vget_low_f32(low.val[0]), vget_low_f32(high.val[0]));
    a[1] = vcombine_f32(vget_low_f32(low.val[1]), vget_low_f32(high.val[1]));
    a[2] = vcombine_f32(vget_high_f32(low.val[0]), vget_high_f32(high.val[0]));
    a[3] = vcombine_f32(vget_high_f32(low.val[1]), vget_high_f32(high.val[1]));
}
