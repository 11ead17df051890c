/* y = x W^T + b for few rows: each output is one sum over k in one order, whatever the rows around it.
 *
 * Weights are packed once (pack.h) into panels of 32 columns: for each step over k, 128 bytes that hold the 32
 * columns' floats, or their pairs of bfloat16. A panel is streamed from memory once, in blocks that stay in the
 * nearest cache while all rows use them. An output's sum starts anew with each block of steps and the blocks are
 * added in order; how rows and columns are tiled in registers changes no sum. */

#define STEP_BYTES 128
#define BLOCK_STEPS 128

#ifdef HAS_DOT_PAIRS
#define PARTS(is_bf16) 1 /* a pair is one instruction, and x stays bfloat16 */
#else
#define PARTS(is_bf16) ((is_bf16) ? 2 : 1)
#endif

INLINE vf multiply_add(vf x, vf w, vf sum, int is_bf16) {
#ifdef HAS_DOT_PAIRS
    if (is_bf16) return vf_dot_pairs(sum, x, w);
#endif
    (void)is_bf16;
    return vf_fma(x, w, sum);
}

INLINE vf weights(const char *p, int is_bf16, int part) {
    (void)is_bf16;
    if (PARTS(is_bf16) == 1) return vf_load((const float *)p);
    return part == 0 ? vf_load_first(p) : vf_load_second(p);
}

/* x of one row: `floats` apart from the next row's, PARTS(is_bf16) of them a step. */
typedef struct {
    const float *x;
    int64_t floats;
} Input;

/* Few rows use a block so fast that it must be in the first level; with many the next would crowd it out: measured. */
INLINE void fetch_step(const int rows, const char *from) {
    if (rows <= SLIM_ROWS) __builtin_prefetch(from, 0, 3);
    else prefetch(from);
}

/* Adds `steps` steps of `rows` x `vecs` outputs to `sums` (rows of PANEL floats); fetches memory `ahead` meanwhile. */
INLINE void tile(const int rows, const int vecs, const int is_bf16, Input in, const char *w, int64_t steps,
                 const char *ahead, int64_t ahead_bytes, float *sums) {
    vf acc[WIDE_ROWS * WIDE_VECS > SLIM_ROWS * SLIM_VECS ? WIDE_ROWS * WIDE_VECS : SLIM_ROWS * SLIM_VECS];
    const int parts = PARTS(is_bf16);
    UNROLL for (int i = 0; i < rows * vecs; i++) acc[i] = vf_set1(0.0f);
    for (int64_t s = 0; s < steps; s++) {
        fetch_step(rows, ahead + s * ahead_bytes);
        if (vecs * LANES * 4 > LINE) fetch_step(rows, ahead + s * ahead_bytes + LINE);
        UNROLL for (int part = 0; part < parts; part++) {
            const float *x = in.x + s * parts + part;
            if (rows < vecs) { /* hold the x of all rows, or else the weights of all vectors, in registers */
                vf held[WIDE_ROWS > SLIM_ROWS ? WIDE_ROWS : SLIM_ROWS];
                UNROLL for (int r = 0; r < rows; r++) held[r] = vf_set1(x[r * in.floats]);
                UNROLL for (int v = 0; v < vecs; v++) {
                    vf wv = weights(w + s * STEP_BYTES + v * 4 * LANES, is_bf16, part);
                    UNROLL for (int r = 0; r < rows; r++)
                        acc[r * vecs + v] = multiply_add(held[r], wv, acc[r * vecs + v], is_bf16);
                }
            } else {
                vf held[WIDE_VECS > SLIM_VECS ? WIDE_VECS : SLIM_VECS];
                UNROLL for (int v = 0; v < vecs; v++) held[v] = weights(w + s * STEP_BYTES + v * 4 * LANES, is_bf16, part);
                UNROLL for (int r = 0; r < rows; r++) {
                    vf xv = vf_set1(x[r * in.floats]);
                    UNROLL for (int v = 0; v < vecs; v++)
                        acc[r * vecs + v] = multiply_add(xv, held[v], acc[r * vecs + v], is_bf16);
                }
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++) {
            float *sum = sums + r * PANEL + v * LANES;
            vf_store(sum, vf_add(vf_load(sum), acc[r * vecs + v]));
        }
    }
}

/* A tile of any number of rows up to WIDE_ROWS: few rows take more vectors, to have enough sums in flight. */
INLINE void rows_of_block(int rows, const int is_bf16, Input in, const char *w, int64_t steps, const char *ahead,
                          int64_t ahead_bytes, float *sums) {
#define CASE(n, vecs)                                                                                            \
    case n:                                                                                                      \
        for (int v = 0; v < PANEL / LANES; v += vecs)                                                            \
            tile(n, vecs, is_bf16, in, w + v * 4 * LANES, steps, ahead + v * 4 * LANES, ahead_bytes, sums + v * LANES); \
        break;
#define SLIM(n) CASE(n, (n <= SLIM_ROWS ? SLIM_VECS : WIDE_VECS))
    switch (rows) {
        SLIM(1) SLIM(2)
#if WIDE_ROWS > 2
        SLIM(3) SLIM(4) SLIM(5)
#endif
#if WIDE_ROWS > 5
        SLIM(6) SLIM(7) SLIM(8)
#endif
    }
#undef SLIM
#undef CASE
}

INLINE void panel(int64_t rows, const int is_bf16, Input in, const char *w, int64_t steps, float *sums) {
    const int64_t groups = (rows + WIDE_ROWS - 1) / WIDE_ROWS;
    for (int64_t i = 0; i < rows * PANEL; i += LANES) vf_store(sums + i, vf_set1(0.0f));
    for (int64_t s = 0; s < steps; s += BLOCK_STEPS) {
        const int64_t count = steps - s < BLOCK_STEPS ? steps - s : BLOCK_STEPS;
        const char *block = w + s * STEP_BYTES;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t first = rows * g / groups, next = rows * (g + 1) / groups;
            Input part = {in.x + first * in.floats + s * PARTS(is_bf16), in.floats};
            /* Each group of rows fetches its part of the next block, so that memory never waits for arithmetic. */
            const char *ahead = block + BLOCK_STEPS * STEP_BYTES + g * count * STEP_BYTES / groups;
            rows_of_block((int)(next - first), is_bf16, part, block, count, ahead, STEP_BYTES / groups,
                          sums + first * PANEL);
        }
    }
}

/* Bias and rounding of one row of a panel; the last panel may be narrower. */
static void finish(float *sums, const View *bias, int64_t column, int64_t columns, int64_t dtype, char *out) {
    float extra[PANEL] = {0};
    if (bias->data != NULL) load_floats(extra, bias->data + column * width_of(bias->dtype), bias->dtype, columns);
    for (int v = 0; v < PANEL; v += LANES) vf_store(sums + v, vf_add(vf_load(sums + v), vf_load(extra + v)));
    store_floats(out, dtype, sums, columns);
}

/* Copies x into scratch: float32, or as it is where pairs are multiplied; rows apart enough not to share cache sets. */
static Input prepare(const View *x, int64_t rows, int64_t k, char *scratch) {
    const int keep = PARTS(1) == 1 && x->dtype == BF16;
    const int64_t floats = input_floats(k);
    for (int64_t r = 0; r < rows; r++) {
        const char *from = x->data + r * x->strides[0] * width_of(x->dtype);
        float *to = (float *)scratch + r * floats;
        for (int64_t i = k / 16 * 16; i < floats; i++) to[i] = 0.0f;
        if (keep) memcpy(to, from, (size_t)k * 2);
        else load_floats(to, from, x->dtype, k);
        if (keep && k % 2) ((uint16_t *)to)[k] = 0;
    }
    Input in = {(const float *)scratch, floats};
    return in;
}

/* Items of what works on rows, or on panels. */
static int64_t rows_of(const Op *op) { return op->shape[0]; }
static int64_t panels_of(const Op *op) { return (op->shape[1] + PANEL - 1) / PANEL; }

/* Items: panels, for MAX_ROWS rows after MAX_ROWS rows. */
static int64_t linear_items(const Op *op) { return (op->shape[0] + MAX_ROWS - 1) / MAX_ROWS * panels_of(op); }

/* The input of `count` rows from `row` on, prepared once for all of a worker's tickets. */
static Input input_of(const Op *op, Worker *worker, int64_t row, int64_t count) {
    const Input kept = {(const float *)worker->scratch, input_floats(op->shape[2])};
    if (worker->prepared == op && worker->prepared_row == row) return kept;
    View part = op->views[1];
    part.data += row * part.strides[0] * width_of(part.dtype);
    worker->prepared = op, worker->prepared_row = row;
    return prepare(&part, count, op->shape[2], worker->scratch);
}

/* views: y (M, N), x (M, K), packed weight, bias (N) or none; shape M, N, K. */
static void linear(const Op *op, Worker *worker, Range items) {
    const int64_t rows = op->shape[0], columns = op->shape[1], k = op->shape[2], panels = panels_of(op);
    const View *y = &op->views[0], *w = &op->views[2], *bias = &op->views[3];
    const int is_bf16 = w->dtype == BF16;
    const int64_t steps = is_bf16 ? (k + 1) / 2 : k;
    float *sums = (float *)(worker->scratch + MAX_ROWS * input_floats(k) * 4);
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t row = i / panels * MAX_ROWS, p = i % panels;
        const int64_t count = rows - row < MAX_ROWS ? rows - row : MAX_ROWS;
        const Input in = input_of(op, worker, row, count);
        const char *packed = w->data + p * steps * STEP_BYTES;
        if (is_bf16) panel(count, 1, in, packed, steps, sums);
        else panel(count, 0, in, packed, steps, sums);
        const int64_t width = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
        for (int64_t r = 0; r < count; r++)
            finish(sums + r * PANEL, bias, p * PANEL, width, y->dtype,
                   y->data + ((row + r) * y->strides[0] + p * PANEL) * width_of(y->dtype));
    }
}

/* Rows of a packed weight (an embedding that shares it): views y (M, K), tokens (M) int64, packed; shape M, N, K.
 * A token outside [0, N) reads the nearest row. */
static void embed(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int64_t k = op->shape[2];
    const View *y = &op->views[0], *tokens = &op->views[1], *w = &op->views[2];
    const int64_t parts = w->dtype == BF16 ? 2 : 1, width = width_of(w->dtype), steps = (k + parts - 1) / parts;
    for (int64_t r = items.first; r < items.end; r++) {
        const int64_t token = clamped(((const int64_t *)tokens->data)[r * tokens->strides[0]], op->shape[1]);
        const char *from = w->data + token / PANEL * steps * STEP_BYTES + token % PANEL * 4;
        char *to = y->data + r * y->strides[0] * width;
        for (int64_t i = 0; i < k; i++)
            memcpy(to + i * width, from + i / parts * STEP_BYTES + i % parts * width, (size_t)width);
    }
}
