/* Weights to blocks of few bits: codes to bytes, as blocks.py says. The search is in rounding.h. */

enum { ROUND_ITEM = 64 }; /* blocks of an item: whole vectors of them */

/* What a worker needs: weights and what they matter, then codes; (SUPER, LANES) each. */
typedef struct {
    float *x, *w, *rows;
    uint8_t *codes; /* (LANES, SUPER) */
} Rounding;

static void put_half(uint8_t *to, float value) {
    const uint16_t bits = half_bits(value);
    memcpy(to, &bits, sizeof bits);
}

/* Codes of `n` weights from the first on, plus an offset. */
static void put_codes(const Rounding *r, int first, int n, vf start, vf scale, float low, float high, float offset) {
    const vf inverse = inverse_of(scale);
    for (int i = first; i < first + n; i++) {
        float lanes[LANES];
        vf_store(lanes, vf_add(code_of(vf_add(at(r->x, i), start), inverse, low, high), vf_set1(offset)));
        for (int l = 0; l < LANES; l++) r->codes[l * SUPER + i] = (uint8_t)(int)lanes[l];
    }
}

static void put_nibbles(const uint8_t *codes, int half, uint8_t *to) {
    for (int i = 0; i < half; i++) to[i] = (uint8_t)((codes[i] & 15) | codes[i + half] << 4);
}

static void q8_0(const Rounding *r, uint8_t *to, int count) {
    const vf size = vf_abs(largest_of(r->x, GROUP));
    vf scale = half_of(vf_mul(size, vf_set1(1.0f / 127.0f)));
    vf error = missed(r->x, r->w, GROUP, scale, -127.0f, 127.0f);
    for (int i = 1; i < EIGHTS; i++) {
        const vf other = half_of(vf_mul(size, vf_set1(1.0f / (127.0f - (float)i))));
        const vf found = missed(r->x, r->w, GROUP, other, -127.0f, 127.0f);
        scale = vf_select_less(found, error, other, scale);
        error = vf_select_less(found, error, found, error);
    }
    put_codes(r, 0, GROUP, zero(), scale, -127.0f, 127.0f, 0.0f);
    float lanes[LANES];
    vf_store(lanes, scale);
    for (int l = 0; l < count; l++, to += 34) {
        put_half(to, lanes[l]);
        memcpy(to + 2, r->codes + l * SUPER, GROUP);
    }
}

static void q4_0(const Rounding *r, uint8_t *to, int count) {
    vf scale = half_of(symmetric(r->x, r->w, GROUP, 8.0f, 0.1f, FOUR_STEPS));
    vf error = missed(r->x, r->w, GROUP, scale, -8.0f, 7.0f);
    for (int i = 0; i < 2; i++) {
        const Fit sums = fit(r->x, r->w, GROUP, inverse_of(scale), -8.0f, 7.0f);
        keep_better(r->x, r->w, GROUP, 8.0f, half_of(ratio(sums.qx, sums.qq)), &scale, &error);
    }
    put_codes(r, 0, GROUP, zero(), scale, -8.0f, 7.0f, 8.0f);
    float lanes[LANES];
    vf_store(lanes, scale);
    for (int l = 0; l < count; l++, to += 18) {
        put_half(to, lanes[l]);
        put_nibbles(r->codes + l * SUPER, GROUP / 2, to + 2);
    }
}

/* Its step and start are the group's own best, as float16 holds them, or those fitted to the codes of that. */
static void q4_1(const Rounding *r, uint8_t *to, int count) {
    const Sums sums = sums_of(r->x, r->w);
    const Affine own = affine(r->x, r->w, &sums, 15.0f);
    Affine best = {half_of(own.step), half_of(own.start)};
    vf error = affine_missed(r->x, r->w, best.step, best.start, 15.0f);
    for (int i = 0; i < REFITS; i++) {
        const vf inverse = inverse_of(best.step);
        vf gain;
        Affine found = affine_fit(r->x, r->w, &sums, inverse, vf_mul(best.start, inverse), 15.0f, &gain);
        found.step = half_of(found.step);
        found.start = half_of(found.start);
        const vf wrong = affine_missed(r->x, r->w, found.step, found.start, 15.0f);
        best.step = vf_select_less(wrong, error, found.step, best.step);
        best.start = vf_select_less(wrong, error, found.start, best.start);
        error = vf_min(wrong, error);
    }
    put_codes(r, 0, GROUP, best.start, best.step, 0.0f, 15.0f, 0.0f);
    float steps[LANES], starts[LANES];
    vf_store(steps, best.step);
    vf_store(starts, best.start);
    for (int l = 0; l < count; l++, to += 20) {
        put_half(to, steps[l]);
        put_half(to + 2, -starts[l]);
        put_nibbles(r->codes + l * SUPER, GROUP / 2, to + 4);
    }
}

/* Eight scales and minimums of six bits. */
static void put_scales(const uint8_t *s, const uint8_t *m, uint8_t *to) {
    for (int j = 0; j < 4; j++) {
        to[j] = (uint8_t)(s[j] | s[j + 4] >> 4 << 6);
        to[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        to[j + 8] = (uint8_t)((s[j + 4] & 15) | m[j + 4] << 4);
    }
}

/* Q4_K and, with a plane of fifth bits, Q5_K. */
static void with_minimums(const Rounding *r, uint8_t *to, int count, float top) {
    const Super best = search_super(r->x, r->w, top);
    float d[LANES], dmin[LANES], scales[GROUPS][LANES], minimums[GROUPS][LANES];
    vf_store(d, best.d);
    vf_store(dmin, best.dmin);
    for (int g = 0; g < GROUPS; g++) {
        const vf start = vf_mul(best.dmin, best.minimum[g]);
        put_codes(r, g * GROUP, GROUP, start, vf_mul(best.d, best.scale[g]), 0.0f, top, 0.0f);
        vf_store(scales[g], best.scale[g]);
        vf_store(minimums[g], best.minimum[g]);
    }
    for (int l = 0; l < count; l++) {
        const uint8_t *codes = r->codes + l * SUPER;
        uint8_t s[GROUPS], m[GROUPS];
        for (int g = 0; g < GROUPS; g++) s[g] = (uint8_t)scales[g][l], m[g] = (uint8_t)minimums[g][l];
        put_half(to, d[l]);
        put_half(to + 2, dmin[l]);
        put_scales(s, m, to + 4);
        to += 16;
        if (top > 15.0f) {
            memset(to, 0, GROUP);
            for (int i = 0; i < SUPER; i++) to[i % GROUP] |= (uint8_t)(codes[i] >> 4 << i / GROUP);
            to += GROUP;
        }
        for (int pair = 0; pair < GROUPS / 2; pair++, to += GROUP) put_nibbles(codes + 2 * pair * GROUP, GROUP, to);
    }
}

static void q4_k(const Rounding *r, uint8_t *to, int count) { with_minimums(r, to, count, 15.0f); }
static void q5_k(const Rounding *r, uint8_t *to, int count) { with_minimums(r, to, count, 31.0f); }

static void q6_k(const Rounding *r, uint8_t *to, int count) {
    const Six best = search_six(r->x, r->w);
    float d[LANES], scales[SIX_GROUPS][LANES];
    vf_store(d, best.d);
    for (int g = 0; g < SIX_GROUPS; g++) {
        put_codes(r, g * SIX_GROUP, SIX_GROUP, zero(), vf_mul(best.d, best.scale[g]), -32.0f, 31.0f, 32.0f);
        vf_store(scales[g], best.scale[g]);
    }
    for (int l = 0; l < count; l++, to += 210) {
        memset(to, 0, 192);
        for (int i = 0; i < SUPER; i++) { /* of 128: four runs of 32, whose top bits share bytes */
            const int run = i % 128 / 32, code = r->codes[l * SUPER + i];
            to[i / 128 * 64 + i % 64] |= (uint8_t)((code & 15) << 4 * (run / 2));
            to[128 + i / 128 * 32 + i % 32] |= (uint8_t)(code >> 4 << 2 * run);
        }
        for (int g = 0; g < SIX_GROUPS; g++) to[192 + g] = (uint8_t)(int8_t)scales[g][l];
        put_half(to + 208, d[l]);
    }
}

typedef struct {
    int weights, bytes, group;
    void (*round)(const Rounding *, uint8_t *to, int count);
} Rounder;

static const Rounder ROUNDERS[] = {[Q8_0] = {GROUP, 34, GROUP, q8_0},
                                   [Q4_0] = {GROUP, 18, GROUP, q4_0},
                                   [Q4_1] = {GROUP, 20, GROUP, q4_1},
                                   [Q4_K] = {SUPER, 144, GROUP, q4_k},
                                   [Q5_K] = {SUPER, 176, GROUP, q5_k},
                                   [Q6_K] = {SUPER, 210, SIX_GROUP, q6_k}};

/* Values (N, K) of blocks from one on to (width, LANES), a lane each; lanes without a block, and what is beyond a row,
 * are zeros. */
static void load_blocks(const View *values, int64_t k, int64_t width, int64_t block, int count, float *rows, float *to) {
    const int64_t per_row = (k + width - 1) / width;
    memset(rows, 0, (size_t)width * LANES * 4);
    for (int l = 0; l < count; l++) {
        const int64_t row = (block + l) / per_row, first = (block + l) % per_row * width;
        const char *from = values->data + (row * values->strides[0] + first) * width_of(values->dtype);
        load_floats(rows + l * width, from, values->dtype, k - first < width ? k - first : width);
    }
    for (int i = 0; i < width; i += LANES) {
        vf part[LANES];
        for (int l = 0; l < LANES; l++) part[l] = vf_load(rows + l * width + i);
        vf_transpose(part);
        for (int l = 0; l < LANES; l++) vf_store(to + (i + l) * LANES, part[l]);
    }
}

/* What each weight matters: its size, and the root of its group's mean square. Of the functions tried (none, x x, |x|)
 * this one left a whole model nearest to its own floats, at every type. */
static void put_importance(const Rounding *r, int width, int group) {
    for (int first = 0; first < width; first += group) {
        vf mean = zero();
        for (int i = first; i < first + group; i++) mean = plus_product(mean, at(r->x, i), at(r->x, i));
        mean = vf_sqrt(vf_mul(mean, vf_set1(1.0f / (float)group)));
        for (int i = first; i < first + group; i++) vf_store(r->w + i * LANES, vf_add(mean, vf_abs(at(r->x, i))));
    }
}

/* views: blocks, rows contiguous; the weight (N, K), rows contiguous in themselves. function: the type of blocks. */
static void round_blocks(const Op *op, Worker *worker, Range items) {
    const Rounder *rounder = &ROUNDERS[op->function];
    float *memory = (float *)worker->scratch;
    const Rounding r = {memory, memory + SUPER * LANES, memory + 2 * SUPER * LANES,
                        (uint8_t *)(memory + 3 * SUPER * LANES)};
    const int64_t k = op->shape[1], width = rounder->weights, total = op->shape[0] * ((k + width - 1) / width);
    const int64_t end = items.end * ROUND_ITEM < total ? items.end * ROUND_ITEM : total;
    for (int64_t block = items.first * ROUND_ITEM; block < end; block += LANES) {
        const int count = end - block < LANES ? (int)(end - block) : LANES;
        load_blocks(&op->views[1], k, width, block, count, r.rows, r.x);
        put_importance(&r, rounder->weights, rounder->group);
        rounder->round(&r, (uint8_t *)op->views[0].data + block * rounder->bytes, count);
    }
}

static int64_t round_items(const Op *op) {
    const int64_t width = ROUNDERS[op->function].weights, blocks = op->shape[0] * ((op->shape[1] + width - 1) / width);
    return (blocks + ROUND_ITEM - 1) / ROUND_ITEM;
}
