/* Four 32-bit integers, or what their bytes are: NEON, with or without its dot product. */
#include <string.h>

#include "paceline.h"

typedef uint32x4_t vi;

static inline vi vi_load(const char *p) { return vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p)); }
static inline vi vi_set1(int32_t x) { return vdupq_n_u32((uint32_t)x); }
static inline vi vi_add(vi a, vi b) { return vaddq_u32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_u32(a, b); }
static inline vi vi_and(vi a, vi b) { return vandq_u32(a, b); }
static inline vi vi_or(vi a, vi b) { return vorrq_u32(a, b); }
static inline vi vi_left(vi a, int count) { return vshlq_u32(a, vdupq_n_s32(count)); }
static inline vi vi_right(vi a, int count) { return vshlq_u32(a, vdupq_n_s32(-count)); }
static inline vf vi_to_float(vi a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
static inline vi vi_nearest(vf a) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(a)); } /* ties to even */

/* The low bytes, and the first lane. */
static inline void vi_store_bytes(int8_t *p, vi a) {
    const uint16x4_t words = vmovn_u32(a);
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    vst1_lane_u32((uint32_t *)p, vreinterpret_u32_u8(bytes), 0);
}
static inline int32_t vi_lane(vi a) { return (int32_t)vgetq_lane_u32(a, 0); }

/* To float: a lane from each float16, unsigned or signed byte. */
static inline vf vf_load_half(const char *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}
static inline uint16x4_t four_unsigned(const char *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
}
static inline vf vf_load_unsigned(const char *p) { return vcvtq_f32_u32(vmovl_u16(four_unsigned(p))); }
static inline vf vf_load_signed(const char *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
}

#define BYTE_OFFSET 0
static inline vi vi_signed_codes(vi a) { return a; }

/* sum + for each lane the `count` times four products of its codes in w with the bytes of x: all fit signed bytes. */
INLINE vi vi_dots(vi sum, const vi *w, const int8_t *x, const int count, const int max_code) {
    int32x4_t total = vreinterpretq_s32_u32(sum);
    (void)max_code;
    UNROLL for (int h = 0; h < count; h++) {
        int32_t four;
        memcpy(&four, x + 4 * h, 4);
        const int8x16_t codes = vreinterpretq_s8_u32(w[h]), bytes = vreinterpretq_s8_s32(vdupq_n_s32(four));
#ifdef HAS_DOT_BYTES
        total = vdotq_s32(total, codes, bytes);
#else
        const int16x8_t low = vmull_s8(vget_low_s8(codes), vget_low_s8(bytes));
        const int16x8_t high = vmull_s8(vget_high_s8(codes), vget_high_s8(bytes));
        total = vaddq_s32(total, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
    }
    return vreinterpretq_u32_s32(total);
}
