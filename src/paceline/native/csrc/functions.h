/* Elementwise functions of vectors, the same for every lane and so for every place in a row. */

/* e^x within 2 ulp; 0 below -104, infinity above 89, NaN stays NaN. Polynomial after Cody and Waite's reduction. */
static inline vf vf_exp(vf x) {
    x = vf_min(vf_set1(89.0f), vf_max(vf_set1(-104.0f), x));
    const vf n = vf_round(vf_mul(x, vf_set1(1.44269504f)));
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(5.0000001201e-1f));
    p = vf_fma(vf_mul(r, r), p, vf_add(r, vf_set1(1.0f)));
    const vf half = vf_round(vf_mul(n, vf_set1(0.5f))); /* in two factors, for the ends of the range */
    return vf_mul(vf_mul(p, vf_pow2(half)), vf_pow2(vf_sub(n, half)));
}

/* The first lane. */
static inline float vf_lane(vf x) {
    float lanes[LANES];
    vf_store(lanes, x);
    return lanes[0];
}

static inline vf vf_sigmoid(vf x) {
    return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_sub(vf_set1(0.0f), x))));
}

/* tanh within 4 ulp: a series near 0, where 1 - 2 / (e^2x + 1) would lose its digits. */
static inline vf vf_tanh(vf x) {
    const vf square = vf_mul(x, x);
    vf p = vf_fma(square, vf_set1(-0.0539682540f), vf_set1(0.1333333333f));
    p = vf_fma(p, square, vf_set1(-0.3333333333f));
    const vf near = vf_fma(vf_mul(x, square), p, x);
    const vf e = vf_exp(vf_add(x, x));
    const vf far = vf_sub(vf_set1(1.0f), vf_div(vf_set1(2.0f), vf_add(e, vf_set1(1.0f))));
    return vf_select_less(vf_abs(x), vf_set1(0.25f), near, far);
}

/* The error function within 2e-7: Abramowitz and Stegun 7.1.26. */
static inline vf vf_erf(vf x) {
    const vf a = vf_abs(x);
    const vf t = vf_div(vf_set1(1.0f), vf_fma(vf_set1(0.3275911f), a, vf_set1(1.0f)));
    vf p = vf_set1(1.061405429f);
    p = vf_fma(p, t, vf_set1(-1.453152027f));
    p = vf_fma(p, t, vf_set1(1.421413741f));
    p = vf_fma(p, t, vf_set1(-0.284496736f));
    p = vf_fma(p, t, vf_set1(0.254829592f));
    const vf tail = vf_mul(vf_mul(p, t), vf_exp(vf_sub(vf_set1(0.0f), vf_mul(a, a))));
    const vf value = vf_sub(vf_set1(1.0f), tail);
    return vf_select_less(x, vf_set1(0.0f), vf_sub(vf_set1(0.0f), value), value);
}

/* The exponent and the mantissa, in [sqrt(1/2), sqrt(2)), of positive finite numbers. */
static inline vf vf_parted(vf x, vf *mantissa) {
    float lanes[LANES], exponents[LANES];
    vf_store(lanes, x);
    for (int i = 0; i < LANES; i++) {
        uint32_t bits;
        memcpy(&bits, &lanes[i], sizeof bits);
        const uint32_t moved = bits - 0x3f3504f3u; /* of sqrt(1/2) */
        exponents[i] = (float)((int32_t)moved >> 23);
        bits = (moved & 0x007fffffu) + 0x3f3504f3u;
        memcpy(&lanes[i], &bits, sizeof bits);
    }
    *mantissa = vf_load(lanes);
    return vf_load(exponents);
}

/* The natural logarithm within 2 ulp; -infinity at 0, NaN below. Cephes' polynomial. Fused everywhere: what is fused
 * on some instruction sets alone would have other bits on the others. */
static inline vf vf_log(vf x) {
    const vf zero = vf_set1(0.0f), tiny = vf_set1(1.17549435e-38f), huge = vf_set1(INFINITY);
    vf m;
    vf e = vf_parted(vf_select_less(x, tiny, vf_mul(x, vf_set1(8388608.0f)), x), &m);
    e = vf_select_less(x, tiny, vf_sub(e, vf_set1(23.0f)), e);
    const vf r = vf_sub(m, vf_set1(1.0f)), square = vf_mul(r, r);
    vf p = vf_set1(7.0376836292e-2f);
    p = vf_fused(p, r, vf_set1(-1.1514610310e-1f));
    p = vf_fused(p, r, vf_set1(1.1676998740e-1f));
    p = vf_fused(p, r, vf_set1(-1.2420140846e-1f));
    p = vf_fused(p, r, vf_set1(1.4249322787e-1f));
    p = vf_fused(p, r, vf_set1(-1.6668057665e-1f));
    p = vf_fused(p, r, vf_set1(2.0000714765e-1f));
    p = vf_fused(p, r, vf_set1(-2.4999993993e-1f));
    p = vf_fused(p, r, vf_set1(3.3333331174e-1f));
    vf y = vf_fused(vf_mul(square, r), p, vf_mul(e, vf_set1(-2.12194440e-4f)));
    y = vf_add(r, vf_fused(square, vf_set1(-0.5f), y));
    y = vf_fused(e, vf_set1(0.693359375f), y);
    y = vf_select_less(x, huge, y, x); /* infinity and NaN stay what they are */
    y = vf_select_less(zero, x, y, vf_select_less(x, zero, vf_set1(NAN), y));
    return vf_select_less(vf_abs(x), vf_set1(1.0e-45f), vf_set1(-INFINITY), y);
}

/* log(1 + x) within 3 ulp: what 1 + x loses by rounding is added again. */
static inline vf vf_log1p(vf x) {
    const vf one = vf_set1(1.0f), u = vf_add(one, x);
    const vf lost = vf_div(vf_sub(x, vf_sub(u, one)), u);
    const vf y = vf_log(u);
    return vf_select_less(vf_abs(y), vf_set1(60.0f), vf_add(y, lost), y);
}

/* e^x - 1 within 3 ulp. */
static inline vf vf_expm1(vf x) {
    const vf n = vf_round(vf_mul(vf_max(vf_set1(-40.0f), vf_min(vf_set1(40.0f), x)), vf_set1(1.44269504f)));
    vf r = vf_fused(n, vf_set1(-0.693359375f), vf_max(vf_set1(-40.0f), x));
    r = vf_fused(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.9875691500e-4f);
    p = vf_fused(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fused(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fused(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fused(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fused(p, r, vf_set1(5.0000001201e-1f));
    p = vf_fused(vf_mul(r, r), p, r); /* e^r - 1 */
    const vf power = vf_pow2(n), near = vf_fused(power, p, vf_sub(power, vf_set1(1.0f)));
    return vf_select_less(x, vf_set1(30.0f), near, vf_exp(x));
}

/* log(1 + e^x), which nears x, within 4 ulp. */
static inline vf vf_softplus(vf x) {
    const vf zero = vf_set1(0.0f), least = vf_log1p(vf_exp(vf_sub(zero, vf_abs(x))));
    return vf_add(vf_max(zero, x), least);
}

static inline vf vf_floor(vf x) {
    const vf near = vf_round(x);
    return vf_select_less(x, near, vf_sub(near, vf_set1(1.0f)), near);
}
