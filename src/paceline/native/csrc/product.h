/* Small matrix products for attention. Each output is one sum over the steps in ascending order, whatever is around it:
 * rows and vectors only share registers. */

#define GROUP_ROWS (ACCUMULATORS / 2) /* queries that share registers */

/* How many of the queries that are left go together: even groups, as large as registers allow. */
INLINE int64_t group_rows(int64_t left) {
    const int64_t groups = (left + GROUP_ROWS - 1) / GROUP_ROWS;
    return (left + groups - 1) / groups;
}

/* From `first` up to `end`: steps of a sum, places of a tile. */
typedef struct {
    int64_t first, end;
} Range;

/* c (rows, vecs) = [c +] a (rows, steps) times b (steps, vecs), the steps in order. */
INLINE void product_block(const int rows, const int vecs, const float *a, int64_t a_stride, const float *b,
                          int64_t b_stride, Range steps, float *c, int64_t c_stride, int adds) {
    vf sum[ACCUMULATORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++)
            sum[r * vecs + v] = adds ? vf_load(c + r * c_stride + v * LANES) : vf_set1(0.0f);
    }
    for (int64_t s = steps.first; s < steps.end; s++) {
        vf held[PAGE / LANES];
        UNROLL for (int v = 0; v < vecs; v++) held[v] = vf_load(b + s * b_stride + v * LANES);
        UNROLL for (int r = 0; r < rows; r++) {
            const vf factor = vf_set1(a[r * a_stride + s]);
            UNROLL for (int v = 0; v < vecs; v++) sum[r * vecs + v] = vf_fma(factor, held[v], sum[r * vecs + v]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vecs; v++) vf_store(c + r * c_stride + v * LANES, sum[r * vecs + v]);
    }
}

/* The same for any width in whole vectors: as many at a time as registers hold. */
INLINE void product_rows(const int rows, int64_t width, const float *a, int64_t a_stride, const float *b,
                         int64_t b_stride, Range steps, float *c, int64_t c_stride, int adds) {
    int64_t n = 0;
#define STEP(vecs)                                                 \
    if (rows * vecs <= ACCUMULATORS && vecs * LANES <= PAGE)       \
        for (; n + vecs * LANES <= width; n += vecs * LANES)       \
            product_block(rows, vecs, a, a_stride, b + n, b_stride, steps, c + n, c_stride, adds);
    STEP(8) STEP(4) STEP(2) STEP(1)
#undef STEP
}

static void product(int rows, int64_t width, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                    Range steps, float *c, int64_t c_stride, int adds) {
    if (steps.first >= steps.end) return;
#define CASE(n) \
    case n: product_rows(n, width, a, a_stride, b, b_stride, steps, c, c_stride, adds); break;
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
