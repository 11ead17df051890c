/* Keys and values of the pool as attention multiplies them: float32, keys transposed so that a lane is a key. */

/* LANES keys to columns of `to` (dim, PAGE); fetches what stands `ahead` of each, if not 0. */
static void transpose_keys(const char *const *from, int64_t dtype, int64_t dim, int64_t ahead, float *to) {
    for (int64_t d = 0; d < dim; d += LANES) {
        vf block[LANES];
        if (dim - d < LANES) {
            for (int i = 0; i < LANES; i++) {
                float part[LANES] = {0};
                load_floats(part, from[i] + d * width_of(dtype), dtype, dim - d);
                block[i] = vf_load(part);
            }
        } else if (dtype == BF16) {
            UNROLL for (int i = 0; i < LANES; i++) block[i] = vf_load_bf16((const uint16_t *)from[i] + d);
        } else {
            UNROLL for (int i = 0; i < LANES; i++) block[i] = vf_load((const float *)from[i] + d);
        }
        if (ahead && d * width_of(dtype) % LINE == 0)
            for (int i = 0; i < LANES; i++) prefetch(from[i] + ahead + d * width_of(dtype));
        vf_transpose(block);
        UNROLL for (int i = 0; i < LANES; i++) vf_store(to + (d + i) * PAGE, block[i]);
    }
}

/* The keys of places `range` of a page; more around them, to whole vectors. */
static void load_keys(const View *pool, int64_t page, int64_t head, Range range, int64_t dim, int64_t ahead, float *to) {
    for (int64_t place = range.first / LANES * LANES; place < range.end; place += LANES) {
        const char *from[LANES];
        for (int i = 0; i < LANES; i++) from[i] = element(pool, page, head, place + i);
        transpose_keys(from, pool->dtype, dim, ahead, to + place);
    }
}

/* Bytes between pages that are `pages` apart. */
INLINE int64_t bytes_of(const View *pool, int64_t pages) { return pages * pool->strides[0] * width_of(pool->dtype); }

/* One value to `width` floats. */
static void load_value(const View *pool, const char *from, int64_t dim, int64_t width, float *to) {
    load_floats(to, from, pool->dtype, dim);
    for (int64_t i = dim; i < width; i++) to[i] = 0.0f;
}

/* Values of a tile, (PAGE, stride). */
typedef struct {
    const float *data;
    int64_t stride;
} Values;

/* The values of places `range` of a page: where they are, if they are whole vectors of float32. */
static Values load_values(const View *pool, int64_t page, int64_t head, Range range, int64_t dim, int64_t ahead,
                          float *to) {
    const int64_t width = round_up(dim, LANES), bytes = dim * width_of(pool->dtype);
    if (pool->dtype == F32 && width == dim) {
        const Values in_place = {(const float *)element(pool, page, head, 0), pool->strides[2]};
        return in_place;
    }
    for (int64_t i = range.first; i < range.end; i++) {
        const char *from = element(pool, page, head, i);
        for (int64_t byte = 0; ahead && byte < bytes; byte += LINE) prefetch(from + ahead + byte);
        load_value(pool, from, dim, width, to + i * width);
    }
    const Values copied = {to, width};
    return copied;
}
