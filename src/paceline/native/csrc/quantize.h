/* Between floats and quantised values: a linear's input in int8 groups, weights in blocks to panels, rows of these to floats. */

/* 32 values to int8 and a scale: the largest becomes 127. What is not finite makes all that it meets NaN. */
static void quantize_group(const float *x, Inputs *to) {
    vf most = vf_set1(0.0f), spoilt = vf_set1(0.0f);
    for (int i = 0; i < GROUP; i += LANES) {
        most = vf_max(vf_abs(vf_load(x + i)), most);
        spoilt = vf_add(vf_mul(vf_load(x + i), vf_set1(0.0f)), spoilt);
    }
    const float highest = vf_highest(most), is_spoilt = vf_sum(spoilt);
    memset(to, 0, sizeof *to);
    if (is_spoilt != is_spoilt) {
        to->d = to->sum = is_spoilt;
        return;
    }
    if (highest < 1e-30f) return; /* its inverse would not be finite */
    const vf inverse = vf_set1(127.0f / highest);
    for (int i = 0; i < GROUP; i += LANES) vi_store_bytes(to->q + i, vi_nearest(vf_mul(vf_load(x + i), inverse)));
    vi ones[OPERANDS];
    for (int i = 0; i < OPERANDS; i++) ones[i] = vi_set1(0x01010101);
    const vi first = vi_dots(vi_set1(0), ones, to->q, OPERANDS / 2, 1);
    const int32_t half = vi_lane(first);
    const int32_t sum = vi_lane(vi_dots(first, ones, to->q + GROUP / 2, OPERANDS / 2, 1));
    to->d = highest / 127.0f;
    to->sum = to->d * (float)sum;
    to->start = -8 * sum;
    to->half = -8 * half;
}

/* views: inputs (M, bytes), x (M, K), the feature that each k takes (K) int64 or none; shape M, -, K. */
static void quantize(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int64_t k = op->shape[2], whole = round_up(k, SUPER_GROUPS * GROUP);
    const View *out = &op->views[0], *x = &op->views[1], *order = &op->views[2];
    const int64_t width = width_of(x->dtype);
    for (int64_t r = items.first; r < items.end; r++) {
        const char *from = x->data + r * x->strides[0] * width;
        Inputs *to = (Inputs *)(out->data + r * out->strides[0]);
        for (int64_t g = 0; g < whole / GROUP; g++) {
            const int64_t left = k - g * GROUP, count = left < 0 ? 0 : left < GROUP ? left : GROUP;
            if (order->data == NULL && x->dtype == F32 && count == GROUP) {
                quantize_group((const float *)from + g * GROUP, to + g);
                continue;
            }
            float values[GROUP] = {0};
            if (order->data == NULL) load_floats(values, from + g * GROUP * width, x->dtype, count);
            for (int64_t i = 0; order->data != NULL && i < count; i++) {
                const int64_t at = clamped(((const int64_t *)order->data)[g * GROUP + i], k);
                load_floats(values + i, from + at * width, x->dtype, 1);
            }
            quantize_group(values, to + g);
        }
    }
}

/* Bytes and weights of a block as files have it. */
static const int64_t FILE_BYTES[] = {34, 36, 18, 20, 20, 144, 176, 210};

/* A 6-bit scale (`is_minimum` 0) or minimum of a group of Q4_K and Q5_K, from their 12 bytes. */
static uint8_t six_bits(const uint8_t *b, int group, int is_minimum) {
    const uint8_t *own = b + group + (is_minimum ? 4 : 0);
    if (group < 4) return *own & 63;
    const uint8_t low = is_minimum ? b[group + 4] >> 4 : b[group + 4] & 15;
    return (uint8_t)(low | (is_minimum ? b[group] : b[group - 4]) >> 6 << 4);
}

/* The 32 codes of a group, in ascending order. */
static void read_codes(int block, const uint8_t *from, int group, uint8_t *codes) {
    if (IS_BYTES(block)) {
        memcpy(codes, from + (block == Q8_F ? 4 : 2), GROUP);
    } else if (block <= Q4_Z) {
        const uint8_t *q = from + (block == Q4_0 ? 2 : 4);
        for (int i = 0; i < 16; i++) codes[i] = q[i] & 15, codes[i + 16] = q[i] >> 4;
    } else if (block == Q6_K) {
        const uint8_t *q = from + group / 4 * 64 + group % 2 * 32, *high = from + 128 + group / 4 * 32;
        for (int i = 0; i < GROUP; i++)
            codes[i] = (uint8_t)((group % 4 < 2 ? q[i] & 15 : q[i] >> 4) | (high[i] >> 2 * (group % 4) & 3) << 4);
    } else {
        const uint8_t *high = from + 16, *q = from + (block == Q5_K ? 48 : 16) + group / 2 * 32;
        for (int i = 0; i < GROUP; i++) codes[i] = group % 2 ? q[i] >> 4 : q[i] & 15;
        for (int i = 0; block == Q5_K && i < GROUP; i++) codes[i] |= (uint8_t)((high[i] >> group & 1) << 4);
    }
}

static void write_codes(int block, const uint8_t *codes, char *to, int column) {
    uint32_t words[OPERANDS], high[2] = {0, 0};
    memcpy(words, codes, sizeof words);
    if (IS_BYTES(block)) {
        for (int t = 0; t < OPERANDS; t++) memcpy(to + t * STEP_BYTES + 4 * column, &words[t], 4);
        return;
    }
    for (int h = 0; h < OPERANDS; h++) {
        if (block == Q5_K) high[0] |= (words[h] >> 4 & 0x01010101u) << h;
        if (block == Q6_K) high[h / 4] |= (words[h] >> 4 & 0x03030303u) << 2 * (h % 4);
        words[h] &= 0x0f0f0f0fu;
    }
    for (int t = 0; t < OPERANDS / 2; t++) {
        const uint32_t both = words[2 * t] | words[2 * t + 1] << 4;
        memcpy(to + t * STEP_BYTES + 4 * column, &both, 4);
    }
    for (int w = 0; w < HIGH_BYTES(block) / STEP_BYTES; w++)
        memcpy(to + CODE_BYTES(block) + w * STEP_BYTES + 4 * column, &high[w], 4);
}

static void write_scales(int block, const uint8_t *from, int group, char *to, int column) {
    if (block == Q8_F) {
        memcpy(to + 4 * column, from, 4);
    } else if (block == Q6_K) {
        to[column] = (char)from[192 + 2 * group], to[32 + column] = (char)from[192 + 2 * group + 1];
    } else if (IS_SUPER(block)) {
        to[column] = (char)six_bits(from + 4, group, 0), to[32 + column] = (char)six_bits(from + 4, group, 1);
    } else {
        memcpy(to + 2 * column, from, 2);
        if (block == Q4_1) memcpy(to + 64 + 2 * column, from + 2, 2);
        if (block == Q4_Z) to[64 + column] = (char)from[2];
    }
}

static void write_head(int block, const uint8_t *from, char *to, int column) {
    if (!IS_SUPER(block)) return;
    memcpy(to + 2 * column, from + (block == Q6_K ? 208 : 0), 2);
    if (block != Q6_K) memcpy(to + 64 + 2 * column, from + 2, 2);
}

/* views: packed, blocks (N, bytes) as files have them; shape 1, N, K. */
static void pack_quantized(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int block = (int)op->function;
    const int64_t columns = op->shape[1], units = units_of(block, op->shape[2]);
    const View *rows = &op->views[1];
    for (int64_t p = items.first; p < items.end; p++) {
        char *unit = op->views[0].data + p * units * UNIT_BYTES(block);
        memset(unit, 0, (size_t)(units * UNIT_BYTES(block)));
        const int width = (int)(columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL);
        for (int64_t u = 0; u < units; u++, unit += UNIT_BYTES(block))
            for (int c = 0; c < width; c++) {
                const uint8_t *from =
                    (const uint8_t *)rows->data + (p * PANEL + c) * rows->strides[0] + u * FILE_BYTES[block];
                write_head(block, from, unit, c);
                for (int g = 0; g < UNIT_GROUPS(block); g++) {
                    char *group = unit + HEAD_BYTES(block) + g * GROUP_BYTES(block);
                    uint8_t codes[GROUP];
                    read_codes(block, from, g, codes);
                    write_codes(block, codes, group, c);
                    write_scales(block, from, g, group + CODE_BYTES(block) + HIGH_BYTES(block), c);
                }
            }
    }
}

/* One of the four codes in each lane, as it was before it was packed. */
INLINE vf code_of_lane(const int block, vi codes, int byte) {
    const vi low = vi_and(vi_right(codes, 8 * byte), vi_set1(255));
    if (!IS_BYTES(block)) return vi_to_float(low);
    const vi raised = BYTE_OFFSET ? low : vi_and(vi_add(low, vi_set1(128)), vi_set1(255));
    return vi_to_float(vi_sub(raised, vi_set1(128)));
}

/* The values of a group of LANES columns from `first` on, (GROUP, LANES): one rounding each. */
static void read_lanes(int block, const char *group, const char *unit, int first, float *to) {
    const char *high = group + CODE_BYTES(block), *scales = high + HIGH_BYTES(block);
    const Scales s = group_scales(block, scales, first, head_scales(block, unit, first));
    vi codes[OPERANDS];
    unpack_codes(block, group + 4 * first, high + 4 * first, codes);
    for (int i = 0; i < GROUP; i++) {
        const vf code = code_of_lane(block, codes[i / 4], i % 4);
        vf value;
        if (block == Q6_K) value = vf_mul(i < GROUP / 2 ? s.scale : s.minimum, vf_sub(code, vf_set1(32.0f)));
        else if (HAS_MINIMUM(block)) value = vf_fused(code, s.scale, s.minimum);
        else value = vf_mul(s.scale, block == Q4_0 ? vf_sub(code, vf_set1(8.0f)) : code);
        vf_store(to + i * LANES, value);
    }
}

/* How many tokens from `first` on are neighbours whose values are computed together. */
static int64_t neighbours(const View *tokens, int64_t first, int64_t end, int64_t columns) {
    const int64_t *data = (const int64_t *)tokens->data, stride = tokens->strides[0];
    const int64_t token = clamped(data[first * stride], columns);
    int64_t count = 1;
    while (first + count < end && token % LANES + count < LANES && data[(first + count) * stride] == token + count) count++;
    return count;
}

/* Rows of a packed weight as floats: views y (M, K), tokens (M) int64, packed; shape M, N, K.
 * A token outside [0, N) reads the nearest row. */
static void embed_quantized(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int block = (int)op->function, groups = UNIT_GROUPS(block);
    const int64_t k = op->shape[2], units = units_of(block, k);
    const View *y = &op->views[0], *tokens = &op->views[1], *w = &op->views[2];
    const int64_t width = width_of(y->dtype);
    for (int64_t r = items.first, count; r < items.end; r += count) {
        count = neighbours(tokens, r, items.end, op->shape[1]);
        const int64_t token = clamped(((const int64_t *)tokens->data)[r * tokens->strides[0]], op->shape[1]);
        const int column = (int)(token % PANEL), first = column / LANES * LANES;
        const char *panel = w->data + token / PANEL * units * UNIT_BYTES(block);
        for (int64_t g = 0; g * GROUP < k; g++) {
            const char *unit = panel + g / groups * UNIT_BYTES(block);
            const int64_t left = k - g * GROUP < GROUP ? k - g * GROUP : GROUP;
            float lanes[GROUP * LANES], values[GROUP];
            read_lanes(block, unit + HEAD_BYTES(block) + g % groups * GROUP_BYTES(block), unit, first, lanes);
            for (int64_t n = 0; n < count; n++) {
                for (int i = 0; i < GROUP; i++) values[i] = lanes[i * LANES + column - first + n];
                store_floats(y->data + ((r + n) * y->strides[0] + g * GROUP) * width, y->dtype, values, left);
            }
        }
    }
}
