/* Reductions of rows, and rows of a table: included after map.h. */

/* The sum of n contiguous or strided floats, in lanes and then across: one order for a given n. */
static float sum_of(const View *view, const char *row, int64_t stride, int64_t n, float shift, int squared) {
    WideSum total;
    for (int v = 0; v < SUM_VECS; v++) total.lanes[v] = vf_set1(0.0f);
    for (int64_t first = 0; first < n; first += BLOCK) {
        float block[BLOCK];
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        load_block(block, view, row, stride, first, count);
        for (int64_t i = count; i < round_up(count, MAX_LANES); i++) block[i] = shift;
        for (int64_t i = 0; i < count; i += MAX_LANES) {
            UNROLL for (int v = 0; v < SUM_VECS; v++) {
                const vf x = vf_sub(vf_load(block + i + v * LANES), vf_set1(shift));
                total.lanes[v] = squared ? vf_fma(x, x, total.lanes[v]) : vf_add(total.lanes[v], x);
            }
        }
    }
    return sum_across(total);
}

/* views: result (..., 1), x (..., N): the mean of the last dimension, or its sum, if size[0] is set. */
static void mean(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *x = &op->views[1];
    const int64_t last = op->ndim - 1, n = op->shape[last];
    for (int64_t row = items.first; row < items.end; row++) {
        const float sum = sum_of(x, row_of(x, op, row), x->strides[last], n, 0.0f, 0);
        const float value = op->size[0] ? sum : sum / (float)n;
        store_floats((char *)row_of(out, op, row), out->dtype, &value, 1);
    }
}

/* views: result, x, weight (N) or none, bias (N) or none; number[0] is epsilon: the last dimension normalised. */
static void layer_norm(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *x = &op->views[1], *weight = &op->views[2], *bias = &op->views[3];
    const int64_t last = op->ndim - 1, n = op->shape[last];
    for (int64_t row = items.first; row < items.end; row++) {
        const char *from = row_of(x, op, row);
        const float center = sum_of(x, from, x->strides[last], n, 0.0f, 0) / (float)n;
        const float variance = sum_of(x, from, x->strides[last], n, center, 1) / (float)n;
        const float scale = 1.0f / sqrtf(variance + (float)op->number[0]);
        for (int64_t first = 0; first < n; first += BLOCK) {
            float a[BLOCK] = {0}, w[BLOCK], b[BLOCK] = {0};
            const int64_t count = n - first < BLOCK ? n - first : BLOCK;
            for (int i = 0; i < BLOCK; i++) w[i] = 1.0f;
            load_block(a, x, from, x->strides[last], first, count);
            if (weight->data != NULL) load_block(w, weight, weight->data, 1, first, count);
            if (bias->data != NULL) load_block(b, bias, bias->data, 1, first, count);
            for (int64_t i = 0; i < count; i += LANES) {
                const vf normal = vf_mul(vf_sub(vf_load(a + i), vf_set1(center)), vf_set1(scale));
                vf_store(a + i, vf_fma(normal, vf_load(w + i), vf_load(b + i)));
            }
            store_block(a, out, (char *)row_of(out, op, row), out->strides[last], first, count);
        }
    }
}

/* views: result (M, K), tokens (M) int64, table (V, K): rows of a table by token. shape M, K; size: V.
 * A token outside [0, V) reads the nearest row; if size[1] is set, a negative one counts from the end first. */
static void gather(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *tokens = &op->views[1], *table = &op->views[2];
    const int64_t width = width_of(table->dtype);
    for (int64_t r = items.first; r < items.end; r++) {
        const int64_t given = ((const int64_t *)tokens->data)[r * tokens->strides[0]];
        const int64_t token = clamped(op->size[1] && given < 0 ? given + op->size[0] : given, op->size[0]);
        memcpy(out->data + r * out->strides[0] * width, table->data + token * table->strides[0] * width,
               (size_t)(op->shape[1] * width));
    }
}
