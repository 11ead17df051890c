/* Small matrix products for attention. Each output is one sum over the steps in ascending order, whatever is around it:
 * rows and vectors only share registers. */

#define GROUP_ROWS (ACCUMULATORS / 2) /* queries that share registers */

/* How many of the queries that are left go together: even groups, as large as registers allow. */
INLINE int64_t group_rows(int64_t left) {
    const int64_t groups = (left + GROUP_ROWS - 1) / GROUP_ROWS;
    return (left + groups - 1) / groups;
}

/* The right side of a product: (steps, width) float32 or bfloat16. */
typedef struct {
    const char *data;
    int64_t dtype, stride; /* from step to step, in elements */
} Factors;

INLINE vf factors_at(Factors b, const int is_bf16, int64_t step, int64_t column) {
    const int64_t i = step * b.stride + column;
    return is_bf16 ? vf_load_bf16((const uint16_t *)b.data + i) : vf_load((const float *)b.data + i);
}

/* c (rows, vecs) at `column` = [c +] a (rows, steps) times b (steps, vecs), the steps in order. */
INLINE void product_block(const int rows, const int vecs, const int is_bf16, const float *a, int64_t a_stride,
                          Factors b, Range steps, float *c, int64_t c_stride, int64_t column, int adds) {
    vf sum[ACCUMULATORS];
    c += column;
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++)
            sum[r * vecs + v] = adds ? vf_load(c + r * c_stride + v * LANES) : vf_set1(0.0f);
    }
    for (int64_t s = steps.first; s < steps.end; s++) {
        vf held[ACCUMULATORS]; /* the smaller side; the other passes through one register */
        if (rows < vecs) {
            UNROLL for (int r = 0; r < rows; r++) held[r] = vf_set1(a[r * a_stride + s]);
            UNROLL for (int v = 0; v < vecs; v++) {
                const vf factor = factors_at(b, is_bf16, s, column + v * LANES);
                UNROLL for (int r = 0; r < rows; r++) sum[r * vecs + v] = vf_fma(held[r], factor, sum[r * vecs + v]);
            }
        } else {
            UNROLL for (int v = 0; v < vecs; v++) held[v] = factors_at(b, is_bf16, s, column + v * LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                const vf factor = vf_set1(a[r * a_stride + s]);
                UNROLL for (int v = 0; v < vecs; v++) sum[r * vecs + v] = vf_fma(factor, held[v], sum[r * vecs + v]);
            }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++) vf_store(c + r * c_stride + v * LANES, sum[r * vecs + v]);
    }
}

/* The same for any width in whole vectors: as many at a time as registers hold. */
INLINE void product_rows(const int rows, const int is_bf16, int64_t width, const float *a, int64_t a_stride, Factors b,
                         Range steps, float *c, int64_t c_stride, int adds) {
    int64_t n = 0;
#define STEP(vecs)                                           \
    if (rows * vecs <= ACCUMULATORS && vecs * LANES <= PAGE) \
        for (; n + vecs * LANES <= width; n += vecs * LANES) \
            product_block(rows, vecs, is_bf16, a, a_stride, b, steps, c, c_stride, n, adds);
    STEP(8) STEP(4) STEP(2) STEP(1)
#undef STEP
}

/* The same for up to GROUP_ROWS rows. */
static void product(int rows, int64_t width, const float *a, int64_t a_stride, Factors b, Range steps, float *c,
                    int64_t c_stride, int adds) {
    if (steps.first >= steps.end) return;
#define CASE(n)                                                                                         \
    case n:                                                                                             \
        if (b.dtype == BF16) product_rows(n, 1, width, a, a_stride, b, steps, c, c_stride, adds);       \
        else product_rows(n, 0, width, a, a_stride, b, steps, c, c_stride, adds);                       \
        break;
    switch (rows) {
        CASE(1) CASE(2)
#if GROUP_ROWS > 2
        CASE(3) CASE(4) CASE(5) CASE(6)
#endif
#if GROUP_ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
#undef CASE
}
