/* Packs a weight (N, K) into panels of 32 columns: see linear.h. What is beyond the weight becomes zeros. */

/* One column: `parts` values of the weight in each step's four bytes. */
static void pack_column(const char *from, int64_t stride, int64_t k, int64_t width, char *to) {
    const int64_t parts = 4 / width, whole = stride == 1 ? k / parts : 0;
    for (int64_t s = 0; s < whole; s++) memcpy(to + s * STEP_BYTES, from + s * 4, 4);
    for (int64_t i = whole * parts; i < k; i++)
        memcpy(to + i / parts * STEP_BYTES + i % parts * width, from + i * stride * width, (size_t)width);
}

/* views: packed, weight with strides of rows and columns; shape 1, N, K. */
static void pack(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int64_t n = op->shape[1], k = op->shape[2];
    const View *weight = &op->views[1];
    const int64_t width = width_of(weight->dtype), steps = (k * width + 3) / 4;
    for (int64_t p = items.first; p < items.end; p++) {
        char *to = op->views[0].data + p * steps * STEP_BYTES;
        memset(to, 0, (size_t)(steps * STEP_BYTES));
        for (int64_t row = p * PANEL; row < n && row < (p + 1) * PANEL; row++)
            pack_column(weight->data + row * weight->strides[0] * width, weight->strides[1], k, width,
                        to + row % PANEL * 4);
    }
}
