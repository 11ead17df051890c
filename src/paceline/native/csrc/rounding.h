/* Weights to blocks of few bits: the search for scales.
 *
 * A lane is a block, so that nothing is ever added across lanes: how many there are changes no bit. Nor does the
 * instruction set, since products and sums are rounded one by one (never vf_fma). Values lie as (n, LANES) floats.
 * Candidates are fixed, and the first of the best stays. No calibration: what a weight matters is a function of the
 * weights of its group. */

enum { SUPER = 256, GROUPS = SUPER / GROUP, SIX_GROUP = 16, SIX_GROUPS = SUPER / SIX_GROUP };

INLINE vf at(const float *values, int i) { return vf_load(values + i * LANES); }
INLINE vf zero(void) { return vf_set1(0.0f); }
INLINE vf plus_product(vf sum, vf a, vf b) { return vf_add(sum, vf_mul(a, b)); }
INLINE vf clamp(vf x, float low, float high) { return vf_min(vf_set1(high), vf_max(vf_set1(low), x)); }

/* How far is searched. Twice as many candidates lower the error by less than 0.5 % (Q4_0, Q4_K) to 2 % (Q8_0). */
enum {
    EIGHTS = 12,     /* largest codes of Q8_0, from 127 down */
    FOUR_STEPS = 9,  /* for Q4_0's largest code, to either side */
    SIX_STEPS = 15,  /* the same for a group of Q6_K */
    LOWS = 6,        /* places of a group's least weight, of its largest: Q4_K and Q5_K */
    HIGHS = 16,
    TRIES = 4,       /* values of d and dmin for a block's largest step and minimum */
    SIX_TRIES = 8,
    REFITS = 2,      /* of d and dmin to the integers found so far */
    SCALE_SPAN = 2,  /* integers around a group's own best, to either side */
    MINIMUM_SPAN = 1,
    SIX_SPAN = 1
};

/* a / b, and 0 where b is not positive. */
INLINE vf ratio(vf a, vf b) {
    return vf_select_less(zero(), b, vf_div(a, vf_select_less(zero(), b, b, vf_set1(1.0f))), zero());
}

/* 1 / a, and 0 where a is 0. */
INLINE vf inverse_of(vf a) {
    const vf size = vf_abs(a);
    return vf_select_less(zero(), size, vf_div(vf_set1(1.0f), vf_select_less(zero(), size, a, vf_set1(1.0f))), zero());
}

/* The bits of the float16 nearest to x, ties to even; |x| is at most 65504. */
static uint16_t half_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size < 0x38800000) return (uint16_t)(sign | (uint32_t)rintf(fabsf(x) * 16777216.0f)); /* below 2^-14 */
    return (uint16_t)(sign | (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13);
}

static float half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : (float)fraction * 0x1p-24f;
    return bits & 0x8000 ? -size : size;
}

/* What float16 makes of each lane. */
static vf half_of(vf a) {
    float lanes[LANES];
    vf_store(lanes, a);
    for (int i = 0; i < LANES; i++) lanes[i] = half_value(half_bits(lanes[i]));
    return vf_load(lanes);
}

/* The weight of each lane that is largest in size, with its sign; the first of several. */
static vf largest_of(const float *x, int n) {
    vf largest = at(x, 0);
    for (int i = 1; i < n; i++) largest = vf_select_less(vf_abs(largest), vf_abs(at(x, i)), at(x, i), largest);
    return largest;
}

INLINE vf code_of(vf x, vf inverse, float low, float high) { return clamp(vf_round(vf_mul(x, inverse)), low, high); }

/* The weighted squared error of x as scale times its nearest codes. */
static vf missed(const float *x, const float *w, int n, vf scale, float low, float high) {
    const vf inverse = inverse_of(scale);
    vf sum = zero();
    for (int i = 0; i < n; i++) {
        const vf error = vf_sub(vf_mul(scale, code_of(at(x, i), inverse, low, high)), at(x, i));
        sum = plus_product(sum, vf_mul(error, error), at(w, i));
    }
    return sum;
}

/* For codes by `inverse`: the sums of w q x and of w q q. Their ratio is the best scale for these codes. */
typedef struct {
    vf qx, qq;
} Fit;

static Fit fit(const float *x, const float *w, int n, vf inverse, float low, float high) {
    Fit sums = {zero(), zero()};
    for (int i = 0; i < n; i++) {
        const vf q = code_of(at(x, i), inverse, low, high), wq = vf_mul(at(w, i), q);
        sums.qx = plus_product(sums.qx, wq, at(x, i));
        sums.qq = plus_product(sums.qq, wq, q);
    }
    return sums;
}

/* The scale of least error for codes from -limit to limit - 1: the largest weight is put near either end, in
 * `count` steps to either side. */
static vf symmetric(const float *x, const float *w, int n, float limit, float step, int count) {
    const vf unit = inverse_of(largest_of(x, n));
    vf best = zero(), scale = zero();
    for (int side = 0; side < 2; side++) {
        for (int i = -count; i <= count; i++) {
            const float end = (side ? limit - 1.0f : -limit) + step * (float)(side ? i : -i);
            const Fit sums = fit(x, w, n, vf_mul(unit, vf_set1(end)), -limit, limit - 1.0f);
            const vf found = ratio(sums.qx, sums.qq), gain = vf_mul(found, sums.qx);
            scale = vf_select_less(best, gain, found, scale);
            best = vf_select_less(best, gain, gain, best);
        }
    }
    return scale;
}

/* Of two scales the one of less error; the first if they are equal. */
static void keep_better(const float *x, const float *w, int n, float limit, vf candidate, vf *scale, vf *error) {
    const vf found = missed(x, w, n, candidate, -limit, limit - 1.0f);
    *scale = vf_select_less(found, *error, candidate, *scale);
    *error = vf_select_less(found, *error, found, *error);
}
