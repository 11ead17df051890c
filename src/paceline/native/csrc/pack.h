/* Packs a weight (N, K) into panels of 32 columns: see linear.h. What is beyond the weight becomes zeros. */

enum { STRIP = 16 }; /* of each column in turn: a cache line is read whole, and what is written stays near */

/* Steps of one column, whose values are contiguous: four bytes each. */
static void pack_steps(const char *from, int64_t count, char *to) {
    for (int64_t s = 0; s < count; s++) memcpy(to + s * STEP_BYTES, from + s * 4, 4);
}

/* Values of one column from the first on, wherever they are. */
static void pack_values(const char *from, int64_t stride, int64_t first, int64_t k, int64_t width, char *to) {
    const int64_t parts = 4 / width;
    for (int64_t i = first; i < k; i++)
        memcpy(to + i / parts * STEP_BYTES + i % parts * width, from + i * stride * width, (size_t)width);
}

/* views: packed, weight with strides of rows and columns; shape 1, N, K. */
static void pack(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int64_t n = op->shape[1], k = op->shape[2];
    const View *weight = &op->views[1];
    const int64_t width = width_of(weight->dtype), steps = (k * width + 3) / 4;
    const int64_t whole = weight->strides[1] == 1 ? k * width / 4 : 0;
    for (int64_t p = items.first; p < items.end; p++) {
        char *to = op->views[0].data + p * steps * STEP_BYTES;
        const int64_t columns = n - p * PANEL < PANEL ? n - p * PANEL : PANEL;
        const char *from = weight->data + p * PANEL * weight->strides[0] * width;
        const int64_t stride = weight->strides[0] * width;
        if (columns < PANEL) memset(to, 0, (size_t)(steps * STEP_BYTES));
        else if (whole < steps) memset(to + whole * STEP_BYTES, 0, (size_t)((steps - whole) * STEP_BYTES));
        for (int64_t first = 0; first < whole; first += STRIP)
            for (int64_t c = 0; c < columns; c++)
                pack_steps(from + c * stride + first * 4, whole - first < STRIP ? whole - first : STRIP,
                           to + first * STEP_BYTES + c * 4);
        for (int64_t c = 0; c < columns; c++)
            pack_values(from + c * stride, weight->strides[1], whole * 4 / width, k, width, to + c * 4);
    }
}
