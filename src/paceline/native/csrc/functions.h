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
