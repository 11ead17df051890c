/* Blocks of 256 weights whose groups' scales are integers of few bits: see rounding.h. */

/* x is near step q - start, q from 0 to top. */
typedef struct {
    vf step, start;
} Affine;

/* Sums over a group that no code enters: of w, and of w x. */
typedef struct {
    vf w, wx;
} Sums;

static Sums sums_of(const float *x, const float *w) {
    Sums sums = {zero(), zero()};
    for (int i = 0; i < GROUP; i++) {
        sums.w = vf_add(sums.w, at(w, i));
        sums.wx = plus_product(sums.wx, at(w, i), at(x, i));
    }
    return sums;
}

/* Step and start of least error for the codes of x * inverse + shift. `gain` is by how much it is less than nothing's.
 * No start is below 0. */
static Affine affine_fit(const float *x, const float *w, const Sums *sums, vf inverse, vf shift, float top, vf *gain) {
    vf q1 = zero(), qq = zero(), qx = zero();
    for (int i = 0; i < GROUP; i++) {
        const vf q = clamp(vf_round(vf_add(vf_mul(at(x, i), inverse), shift)), 0.0f, top), wq = vf_mul(at(w, i), q);
        q1 = vf_add(q1, wq);
        qq = plus_product(qq, wq, q);
        qx = plus_product(qx, wq, at(x, i));
    }
    const vf det = vf_sub(vf_mul(sums->w, qq), vf_mul(q1, q1));
    const vf free_step = ratio(vf_sub(vf_mul(sums->w, qx), vf_mul(sums->wx, q1)), det);
    const vf free_start = ratio(vf_sub(vf_mul(free_step, q1), sums->wx), sums->w);
    Affine found;
    found.step = vf_select_less(free_start, zero(), ratio(qx, qq), free_step);
    found.start = vf_max(free_start, zero());
    *gain = vf_sub(vf_mul(found.step, qx), vf_mul(found.start, sums->wx));
    return found;
}

/* A group's own best: its least weight at code 0 or a little above or below, its largest at `top` or so. */
static Affine affine(const float *x, const float *w, const Sums *sums, float top) {
    vf low = zero(), high = at(x, 0);
    for (int i = 0; i < GROUP; i++) low = vf_min(low, at(x, i)), high = vf_max(high, at(x, i));
    const vf unit = inverse_of(vf_sub(high, low));
    Affine best = {zero(), vf_sub(zero(), low)};
    vf most = zero();
    for (int i = 0; i < LOWS; i++) {
        for (int j = 0; j < HIGHS; j++) {
            const float first = -0.3f + 0.15f * (float)i, last = top - 0.9f + 0.15f * (float)j;
            const vf inverse = vf_mul(unit, vf_set1(last + first));
            const vf shift = vf_sub(vf_set1(-first), vf_mul(low, inverse));
            vf gain;
            const Affine found = affine_fit(x, w, sums, inverse, shift, top, &gain);
            best.step = vf_select_less(most, gain, found.step, best.step);
            best.start = vf_select_less(most, gain, found.start, best.start);
            most = vf_select_less(most, gain, gain, most);
        }
    }
    return best;
}

/* A whole block: scales and minimums of its groups, in units of d and dmin. */
typedef struct {
    vf d, dmin, error, scale[GROUPS], minimum[GROUPS];
} Super;

INLINE vf affine_code(vf x, vf start, vf inverse, float top) { return code_of(vf_add(x, start), inverse, 0.0f, top); }

static vf affine_missed(const float *x, const float *w, vf step, vf start, float top) {
    const vf inverse = inverse_of(step);
    vf sum = zero();
    for (int i = 0; i < GROUP; i++) {
        const vf moved = vf_add(at(x, i), start);
        const vf error = vf_sub(vf_mul(step, code_of(moved, inverse, 0.0f, top)), moved);
        sum = plus_product(sum, vf_mul(error, error), at(w, i));
    }
    return sum;
}

/* The minimum, in units of dmin, that is best for the codes of a step and about a start. */
static vf best_minimum(const float *x, const float *w, const Sums *sums, vf step, vf start, vf dmin, float top) {
    const vf inverse = inverse_of(step);
    vf q1 = zero();
    for (int i = 0; i < GROUP; i++) q1 = plus_product(q1, at(w, i), affine_code(at(x, i), start, inverse, top));
    const vf wanted = vf_sub(vf_mul(step, q1), sums->wx);
    return clamp(vf_round(ratio(wanted, vf_mul(sums->w, dmin))), 0.0f, 63.0f);
}

/* The integers of a group that are best with d and dmin, near those of its own best. */
static void settle(const float *x, const float *w, const Sums *sums, Affine own, float top, int group, Super *found) {
    const vf guess = vf_round(vf_mul(own.step, inverse_of(found->d)));
    vf least = vf_set1(FLT_MAX);
    for (int i = -SCALE_SPAN; i <= SCALE_SPAN; i++) {
        const vf scale = clamp(vf_add(guess, vf_set1((float)i)), 0.0f, 63.0f), step = vf_mul(scale, found->d);
        const vf middle = best_minimum(x, w, sums, step, own.start, found->dmin, top);
        for (int j = -MINIMUM_SPAN; j <= MINIMUM_SPAN; j++) {
            const vf minimum = clamp(vf_add(middle, vf_set1((float)j)), 0.0f, 63.0f);
            const vf error = affine_missed(x, w, step, vf_mul(minimum, found->dmin), top);
            found->scale[group] = vf_select_less(error, least, scale, found->scale[group]);
            found->minimum[group] = vf_select_less(error, least, minimum, found->minimum[group]);
            least = vf_select_less(error, least, error, least);
        }
    }
    found->error = vf_add(found->error, least);
}

static void keep_better_super(const Super *found, Super *best) {
    const vf old = best->error, new = found->error;
    best->d = vf_select_less(new, old, found->d, best->d);
    best->dmin = vf_select_less(new, old, found->dmin, best->dmin);
    for (int g = 0; g < GROUPS; g++) {
        best->scale[g] = vf_select_less(new, old, found->scale[g], best->scale[g]);
        best->minimum[g] = vf_select_less(new, old, found->minimum[g], best->minimum[g]);
    }
    best->error = vf_min(new, old);
}

/* The d and dmin of least error for the integers and codes of a block. */
static void refit(const float *x, const float *w, float top, const Super *block, vf *d, vf *dmin) {
    vf pp = zero(), pm = zero(), mm = zero(), px = zero(), mx = zero();
    for (int g = 0; g < GROUPS; g++) {
        const vf step = vf_mul(block->d, block->scale[g]), start = vf_mul(block->dmin, block->minimum[g]);
        const vf inverse = inverse_of(step), m = block->minimum[g];
        for (int i = g * GROUP; i < (g + 1) * GROUP; i++) {
            const vf p = vf_mul(block->scale[g], affine_code(at(x, i), start, inverse, top));
            const vf wp = vf_mul(at(w, i), p), wm = vf_mul(at(w, i), m);
            pp = plus_product(pp, wp, p);
            pm = plus_product(pm, wp, m);
            mm = plus_product(mm, wm, m);
            px = plus_product(px, wp, at(x, i));
            mx = plus_product(mx, wm, at(x, i));
        }
    }
    const vf det = vf_sub(vf_mul(pp, mm), vf_mul(pm, pm));
    const vf both = ratio(vf_sub(vf_mul(px, mm), vf_mul(mx, pm)), det);
    *dmin = vf_max(ratio(vf_sub(vf_mul(px, pm), vf_mul(mx, pp)), det), zero());
    *d = vf_select_less(zero(), both, both, ratio(px, pp));
}

/* The best block of x for codes up to `top`. */
static Super search_super(const float *x, const float *w, float top) {
    Affine own[GROUPS];
    Sums sums[GROUPS];
    vf step = zero(), start = zero();
    for (int g = 0; g < GROUPS; g++) {
        sums[g] = sums_of(x + g * GROUP * LANES, w + g * GROUP * LANES);
        own[g] = affine(x + g * GROUP * LANES, w + g * GROUP * LANES, &sums[g], top);
        step = vf_max(step, own[g].step);
        start = vf_max(start, own[g].start);
    }
    Super best = {zero(), zero(), vf_set1(FLT_MAX), {zero()}, {zero()}};
    for (int i = 0; i < TRIES + REFITS; i++) {
        Super found = best;
        if (i < TRIES) {
            const vf part = vf_set1(1.0f / (63.0f - 3.0f * (float)i));
            found.d = half_of(vf_mul(step, part));
            found.dmin = half_of(vf_mul(start, part));
        } else {
            refit(x, w, top, &best, &found.d, &found.dmin);
            found.d = half_of(found.d);
            found.dmin = half_of(found.dmin);
        }
        found.error = zero();
        for (int g = 0; g < GROUPS; g++)
            settle(x + g * GROUP * LANES, w + g * GROUP * LANES, &sums[g], own[g], top, g, &found);
        keep_better_super(&found, &best);
    }
    return best;
}

/* A block of Q6_K: scales of 16 groups in units of d. */
typedef struct {
    vf d, error, scale[SIX_GROUPS];
} Six;

static void settle_six(const float *x, const float *w, const vf *own, Six *found) {
    const vf inverse = inverse_of(found->d);
    found->error = zero();
    for (int g = 0; g < SIX_GROUPS; g++) {
        const vf guess = vf_round(vf_mul(own[g], inverse));
        vf least = vf_set1(FLT_MAX);
        for (int i = -SIX_SPAN; i <= SIX_SPAN; i++) {
            const vf scale = clamp(vf_add(guess, vf_set1((float)i)), -128.0f, 127.0f);
            const float *part = x + g * SIX_GROUP * LANES;
            const vf error = missed(part, w + g * SIX_GROUP * LANES, SIX_GROUP, vf_mul(scale, found->d), -32.0f, 31.0f);
            found->scale[g] = vf_select_less(error, least, scale, found->scale[g]);
            least = vf_select_less(error, least, error, least);
        }
        found->error = vf_add(found->error, least);
    }
}

static vf refit_six(const float *x, const float *w, const Six *block) {
    vf pp = zero(), px = zero();
    for (int g = 0; g < SIX_GROUPS; g++) {
        const vf inverse = inverse_of(vf_mul(block->d, block->scale[g]));
        for (int i = g * SIX_GROUP; i < (g + 1) * SIX_GROUP; i++) {
            const vf p = vf_mul(block->scale[g], code_of(at(x, i), inverse, -32.0f, 31.0f)), wp = vf_mul(at(w, i), p);
            pp = plus_product(pp, wp, p);
            px = plus_product(px, wp, at(x, i));
        }
    }
    return ratio(px, pp);
}

static Six search_six(const float *x, const float *w) {
    vf own[SIX_GROUPS], largest = zero();
    for (int g = 0; g < SIX_GROUPS; g++) {
        own[g] = symmetric(x + g * SIX_GROUP * LANES, w + g * SIX_GROUP * LANES, SIX_GROUP, 32.0f, 0.2f, SIX_STEPS);
        largest = vf_max(largest, vf_abs(own[g]));
    }
    Six best = {zero(), vf_set1(FLT_MAX), {zero()}};
    for (int i = 0; i < SIX_TRIES + REFITS; i++) {
        Six found = best;
        const vf part = vf_set1(1.0f / (127.0f - 5.0f * (float)i));
        found.d = half_of(i < SIX_TRIES ? vf_mul(largest, part) : refit_six(x, w, &best));
        settle_six(x, w, own, &found);
        const vf old = best.error;
        best.d = vf_select_less(found.error, old, found.d, best.d);
        for (int g = 0; g < SIX_GROUPS; g++)
            best.scale[g] = vf_select_less(found.error, old, found.scale[g], best.scale[g]);
        best.error = vf_min(found.error, old);
    }
    return best;
}
