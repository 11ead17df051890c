/* Keys and values of the pool as attention multiplies them: keys transposed, so that a lane is a key. */

/* Bytes between pages that are `pages` apart. */
INLINE int64_t bytes_of(const View *pool, int64_t pages) { return pages * pool->strides[0] * width_of(pool->dtype); }

/* LANES keys to columns of `to` (dim, PAGE) float32. Pairs of bfloat16 are moved as one and parted at the end. */
static void transpose_keys(const char *const *from, int64_t dtype, int64_t dim, float *to) {
    const int64_t bytes = dim * width_of(dtype), parts = 4 / width_of(dtype);
    for (int64_t b = 0; b < bytes; b += LANES * 4) {
        vf block[LANES];
        if (bytes - b >= LANES * 4) {
            UNROLL for (int i = 0; i < LANES; i++) block[i] = vf_load_pairs(from[i] + b);
        } else {
            for (int i = 0; i < LANES; i++) {
                char end[LANES * 4] = {0};
                memcpy(end, from[i] + b, (size_t)(bytes - b));
                block[i] = vf_load_pairs(end);
            }
        }
        vf_transpose(block);
        float *row = to + b / 4 * parts * PAGE;
        if (parts == 1) {
            UNROLL for (int i = 0; i < LANES; i++) vf_store(row + i * PAGE, block[i]);
        } else {
            UNROLL for (int i = 0; i < LANES; i++) {
                vf_store(row + 2 * i * PAGE, vf_first(block[i]));
                vf_store(row + (2 * i + 1) * PAGE, vf_second(block[i]));
            }
        }
    }
}

/* Fetches the row that is `ahead` bytes from one, if not 0. */
INLINE void fetch(const char *row, int64_t bytes, int64_t ahead) {
    for (int64_t b = 0; ahead && b < bytes; b += LINE) prefetch(row + ahead + b);
}

/* The keys of places `range` of a page, to (dim, PAGE); more around them, to whole vectors. */
static void load_keys(const View *pool, int64_t page, int64_t head, Range range, int64_t dim,
                      int64_t ahead, float *to) {
    for (int64_t place = range.first / LANES * LANES; place < range.end; place += LANES) {
        const char *from[LANES];
        for (int i = 0; i < LANES; i++) {
            from[i] = element(pool, page, head, place + i);
            fetch(from[i], dim * width_of(pool->dtype), ahead);
        }
        transpose_keys(from, pool->dtype, dim, to + place);
    }
}

/* One value, with zeros up to whole vectors. */
static void load_value(const View *pool, const char *from, int64_t dim, float *to) {
    load_floats(to, from, pool->dtype, dim);
    for (int64_t i = dim; i < round_up(dim, LANES); i++) to[i] = 0.0f;
}

/* The values of places `range` of a page. They stay where they are if they are whole vectors, and either float32 or
 * used `once`: otherwise `to` (PAGE, dim in whole vectors) float32. */
static Factors load_values(const View *pool, int64_t page, int64_t head, Range range, int64_t dim, int64_t ahead,
                           int once, float *to) {
    const Factors in_place = {element(pool, page, head, 0), pool->dtype, pool->strides[2]};
    const Factors copied = {(const char *)to, F32, round_up(dim, LANES)};
    const int stays = dim % LANES == 0 && (once || pool->dtype == F32);
    for (int64_t i = range.first; i < range.end; i++) {
        const char *from = element(pool, page, head, i);
        fetch(from, dim * width_of(pool->dtype), ahead);
        if (!stays) load_value(pool, from, dim, to + i * copied.stride);
    }
    return stays ? in_place : copied;
}
