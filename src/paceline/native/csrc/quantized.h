/* y = x W^T + b for weights in blocks of integer codes: integer products within a group of 32 features, floats between.
 *
 * Weights are packed once (pack_quantized.h), 32 columns to a panel, in units: a unit is one group, or the eight of a
 * super-block. Four bytes of a column lie side by side, so that lanes are columns and no sum runs across lanes:
 *
 *     unit = [a super-block's scales] groups x ([low codes][high bits][scales])
 *
 * Low codes of 4 bits: step t has features 8 t to 8 t + 3 of a column in the low nibbles of four bytes, and the next four in
 * the high ones. Codes of 8 bits: features 4 t to 4 t + 3. High bits: a column's 32 bits hold, in bits h of four bytes, the fifth bits of
 * features 4 h to 4 h + 3; of two bits each, two words.
 *
 * An output is a chain over groups in ascending order: sum = fused(float(dot), scale * d, sum), and where codes have a
 * minimum then sum = fused(minimum, d * (sum of x), sum). The dot is an integer, so has one value whatever the
 * instruction set, tiling or order; all the rest is the same correctly rounded operations everywhere. */

enum block { Q8_0, Q8_F, Q4_0, Q4_1, Q4_Z, Q4_K, Q5_K, Q6_K };

#define GROUP 32    /* features that share a scale of x */
#define SUPER_GROUPS 8     /* groups of a super-block */
#define OPERANDS 8  /* vectors of four codes a lane, to a group */

/* x in a group, as quantize.h makes it. */
typedef struct {
    int8_t q[GROUP];
    float d, sum;       /* x is about d q; d times the sum of q */
    int32_t start, half; /* -8 times the sum of q; the same of its first half */
} Inputs;

#define IS_SUPER(b) ((b) >= Q4_K)
#define HAS_MINIMUM(b) ((b) == Q4_1 || (b) == Q4_Z || (b) == Q4_K || (b) == Q5_K)
#define IS_BYTES(b) ((b) <= Q8_F)
#define CODE_BYTES(b) (IS_BYTES(b) ? 1024 : 512)
#define HIGH_BYTES(b) ((b) == Q5_K ? 128 : (b) == Q6_K ? 256 : 0)
#define SCALE_BYTES(b) ((b) == Q8_F || (b) == Q4_1 || (b) == Q4_Z ? 128 : 64)
#define GROUP_BYTES(b) (CODE_BYTES(b) + HIGH_BYTES(b) + SCALE_BYTES(b))
#define HEAD_BYTES(b) ((b) == Q6_K ? 64 : IS_SUPER(b) ? 128 : 0)
#define UNIT_GROUPS(b) (IS_SUPER(b) ? SUPER_GROUPS : 1)
#define UNIT_BYTES(b) (HEAD_BYTES(b) + UNIT_GROUPS(b) * GROUP_BYTES(b))
#define AHEAD(b) (IS_SUPER(b) ? UNIT_BYTES(b) : 16384) /* bytes of a block: fetched while the one before is used */
#define MAX_CODE(b) (IS_BYTES(b) ? 128 : (b) == Q6_K ? 63 : (b) == Q5_K ? 31 : 15)

static inline int64_t units_of(int block, int64_t k) {
    const int64_t weights = UNIT_GROUPS(block) * GROUP;
    return (k + weights - 1) / weights;
}

/* Bytes of a row of x: whole super-blocks, and a line more, so that rows do not share cache sets. */
static inline int64_t input_bytes(int64_t k) {
    return round_up(round_up(k, SUPER_GROUPS * GROUP) / GROUP * (int64_t)sizeof(Inputs), LINE) + LINE;
}

/* The eight operands of a vector of columns; `codes` and `high` are those of its first column. */
INLINE void unpack_codes(const int block, const char *codes, const char *high, vi *w) {
    const vi nibble = vi_set1(0x0f0f0f0f);
    if (IS_BYTES(block)) {
        UNROLL for (int t = 0; t < OPERANDS; t++) w[t] = vi_signed_codes(vi_load(codes + t * STEP_BYTES));
        return;
    }
    UNROLL for (int t = 0; t < OPERANDS / 2; t++) {
        const vi both = vi_load(codes + t * STEP_BYTES);
        w[2 * t] = vi_and(both, nibble);
        w[2 * t + 1] = vi_and(vi_right(both, 4), nibble);
    }
    if (block == Q5_K) {
        const vi bits = vi_load(high), fifth = vi_set1(0x10101010);
        UNROLL for (int h = 0; h < OPERANDS; h++)
            w[h] = vi_or(w[h], vi_and(h < 4 ? vi_left(bits, 4 - h) : vi_right(bits, h - 4), fifth));
    }
    if (block == Q6_K) {
        const vi top = vi_set1(0x30303030);
        UNROLL for (int h = 0; h < OPERANDS; h++) {
            const vi bits = vi_load(high + h / 4 * STEP_BYTES);
            w[h] = vi_or(w[h], vi_and(h % 4 < 2 ? vi_left(bits, 4 - 2 * (h % 4)) : vi_right(bits, 2 * (h % 4) - 4), top));
        }
    }
}

/* A super-block's own scales, and a group's: scale, minimum (or the scale of a second half). */
typedef struct {
    vf scale, minimum;
} Scales;

INLINE Scales head_scales(const int block, const char *head, int column) {
    const Scales none = {vf_set1(0.0f), vf_set1(0.0f)};
    if (!IS_SUPER(block)) return none;
    const vf scale = vf_load_half(head + 2 * column);
    const Scales both = {scale, block == Q6_K ? scale : vf_load_half(head + 64 + 2 * column)};
    return both;
}

INLINE Scales group_scales(const int block, const char *scales, int column, Scales head) {
    Scales s = head;
    if (block == Q6_K) {
        s.scale = vf_mul(head.scale, vf_load_signed(scales + column));
        s.minimum = vf_mul(head.scale, vf_load_signed(scales + 32 + column));
    } else if (IS_SUPER(block)) {
        s.scale = vf_mul(head.scale, vf_load_unsigned(scales + column));
        s.minimum = vf_sub(vf_set1(0.0f), vf_mul(head.minimum, vf_load_unsigned(scales + 32 + column)));
    } else if (block == Q8_F) {
        s.scale = vf_load((const float *)scales + column);
    } else {
        s.scale = vf_load_half(scales + 2 * column);
        if (block == Q4_1) s.minimum = vf_load_half(scales + 64 + 2 * column);
        if (block == Q4_Z) s.minimum = vf_sub(vf_set1(0.0f), vf_mul(s.scale, vf_load_unsigned(scales + 64 + column)));
    }
    return s;
}

/* Super-blocks go to the first level, others to the second: measured (docs/kernels.md). */
INLINE void fetch_group(const int block, const char *from, const int bytes) {
    for (int b = 0; b < bytes; b += LINE) {
        if (IS_SUPER(block)) __builtin_prefetch(from + b, 0, 3);
        else prefetch(from + b);
    }
}

/* A group of one row added to its sums. */
INLINE vf add_group(const int block, const vi *w, Scales s, const Inputs *x, vf sum) {
    const vf d = vf_set1(x->d);
    if (block == Q6_K) { /* a scale for each half */
        const vi half = vi_set1(x->half);
        const vi first = vi_dots(vi_left(half, 2), w, x->q, OPERANDS / 2, MAX_CODE(block));
        sum = vf_fused(vi_to_float(first), vf_mul(s.scale, d), sum);
        const vi rest = vi_left(vi_sub(vi_set1(x->start), half), 2);
        const vi second = vi_dots(rest, w + OPERANDS / 2, x->q + GROUP / 2, OPERANDS / 2, MAX_CODE(block));
        return vf_fused(vi_to_float(second), vf_mul(s.minimum, d), sum);
    }
    vi start = vi_set1(0);
    if (block == Q4_0) start = vi_set1(x->start);
    if (IS_BYTES(block) && BYTE_OFFSET) start = vi_left(vi_set1(x->start), 4);
    const vi dot = vi_dots(start, w, x->q, OPERANDS, MAX_CODE(block));
    sum = vf_fused(vi_to_float(dot), vf_mul(s.scale, d), sum);
    return HAS_MINIMUM(block) ? vf_fused(s.minimum, vf_set1(x->sum), sum) : sum;
}

/* x of the first of some rows, `bytes` apart. */
typedef struct {
    const char *x;
    int64_t bytes;
} InputRows;

/* Adds `units` units of `rows` rows to `vecs` vectors of `sums` (rows of PANEL floats, from `column` on); fetches `ahead`
 * meanwhile. */
INLINE void quantized_tile(const int block, const int rows, const int vecs, InputRows in, const char *w, int64_t units,
                           int column, const char *ahead, float *sums) {
    const int fetched = GROUP_BYTES(block) * LANES / PANEL * vecs;
    vf acc[2 * QUANTIZED_ROWS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++) acc[r * vecs + v] = vf_load(sums + r * PANEL + column + v * LANES);
    }
    for (int64_t u = 0; u < units; u++) {
        Scales head[2];
        UNROLL for (int v = 0; v < vecs; v++) head[v] = head_scales(block, w, column + v * LANES);
        const char *group = w + HEAD_BYTES(block);
        for (int g = 0; g < UNIT_GROUPS(block); g++) {
            const char *high = group + CODE_BYTES(block), *scales = high + HIGH_BYTES(block);
            UNROLL for (int v = 0; v < vecs; v++) {
                const int first = column + v * LANES;
                vi codes[OPERANDS];
                unpack_codes(block, group + 4 * first, high + 4 * first, codes);
                const Scales s = group_scales(block, scales, first, head[v]);
                UNROLL for (int r = 0; r < rows; r++)
                    acc[r * vecs + v] = add_group(block, codes, s, (const Inputs *)(in.x + r * in.bytes), acc[r * vecs + v]);
            }
            fetch_group(block, ahead, fetched);
            ahead += fetched;
            in.x += sizeof(Inputs), group += GROUP_BYTES(block);
        }
        w += UNIT_BYTES(block);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++) vf_store(sums + r * PANEL + column + v * LANES, acc[r * vecs + v]);
    }
}

/* The same for up to QUANTIZED_ROWS rows and all columns: few rows take all at once, to read memory in order. */
INLINE void quantized_rows(const int block, int rows, InputRows in, const char *w, int64_t units, const char *ahead,
                           float *sums) {
#define VECS_OF(n) (n <= QUANTIZED_SLIM_ROWS ? 2 : 1)
#define CASE(n)                                                                                            \
    case n:                                                                                                \
        for (int c = 0; c < PANEL; c += LANES * VECS_OF(n))                                                      \
            quantized_tile(block, n, VECS_OF(n), in, w, units, c, ahead + units * UNIT_BYTES(block) * c / PANEL, sums); \
        break;
    switch (rows) {
        CASE(1) CASE(2)
#if QUANTIZED_ROWS > 2
        CASE(3) CASE(4)
#endif
#if QUANTIZED_ROWS > 4
        CASE(5) CASE(6) CASE(7) CASE(8)
#endif
    }
#undef CASE
#undef VECS_OF
}

INLINE void quantized_panel(const int block, int64_t rows, InputRows in, const char *w, int64_t units, float *sums) {
    const int64_t groups = (rows + QUANTIZED_ROWS - 1) / QUANTIZED_ROWS;
    const int64_t at_once = AHEAD(block) / UNIT_BYTES(block);
    for (int64_t i = 0; i < rows * PANEL; i += LANES) vf_store(sums + i, vf_set1(0.0f));
    for (int64_t u = 0; u < units; u += at_once) {
        const int64_t count = units - u < at_once ? units - u : at_once;
        const char *first_unit = w + u * UNIT_BYTES(block), *ahead = first_unit + at_once * UNIT_BYTES(block);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t first = rows * g / groups, next = rows * (g + 1) / groups;
            const InputRows part = {in.x + first * in.bytes + u * UNIT_GROUPS(block) * (int64_t)sizeof(Inputs), in.bytes};
            quantized_rows(block, (int)(next - first), part, first_unit, count, g ? first_unit : ahead,
                           sums + first * PANEL);
        }
    }
}

typedef void PanelOf(int64_t rows, InputRows in, const char *w, int64_t units, float *sums);

#define PANEL_OF(block)                                                                                       \
    static void panel_##block(int64_t rows, InputRows in, const char *w, int64_t units, float *sums) { \
        quantized_panel(block, rows, in, w, units, sums);                                                     \
    }
PANEL_OF(Q8_0) PANEL_OF(Q8_F) PANEL_OF(Q4_0) PANEL_OF(Q4_1) PANEL_OF(Q4_Z) PANEL_OF(Q4_K) PANEL_OF(Q5_K) PANEL_OF(Q6_K)
#undef PANEL_OF

static PanelOf *const PANELS[] = {panel_Q8_0, panel_Q8_F, panel_Q4_0, panel_Q4_1,
                                  panel_Q4_Z, panel_Q4_K, panel_Q5_K, panel_Q6_K};

/* views: y (M, N), x (M, bytes) as quantize makes it, packed weight, bias (N) or none; shape M, N, K. */
static void linear_quantized(const Op *op, Worker *worker, Range items) {
    const int64_t rows = op->shape[0], columns = op->shape[1], panels = panels_of(op);
    const int block = (int)op->function;
    const int64_t units = units_of(block, op->shape[2]);
    const View *y = &op->views[0], *x = &op->views[1], *w = &op->views[2], *bias = &op->views[3];
    float *sums = (float *)worker->scratch;
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t row = i / panels * MAX_ROWS, p = i % panels;
        const int64_t count = rows - row < MAX_ROWS ? rows - row : MAX_ROWS;
        const InputRows in = {x->data + row * x->strides[0], x->strides[0]};
        PANELS[block](count, in, w->data + p * units * UNIT_BYTES(block), units, sums);
        const int64_t width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
        for (int64_t r = 0; r < count; r++)
            finish(sums + r * PANEL, bias, p * PANEL, width, y->dtype,
                   y->data + ((row + r) * y->strides[0] + p * PANEL) * width_of(y->dtype));
    }
}
