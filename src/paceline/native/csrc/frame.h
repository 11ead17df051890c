/* The rows of one forward as Python's Frame (frame.py) writes them, and what stores their keys and values.
 *
 * A header stands at an address that never changes; it says where the tables are, which may move from one forward to
 * the next. The key at position i <= p of a row is in slot pages[i / PAGE] * PAGE + i % PAGE while i is committed,
 * and in slot drafts[path[i - committed]] beyond. */

typedef struct {
    const Header *header;
    const int64_t *table, *slots;
    const Sequence *sequences;
    const Row *rows;
    int64_t num_rows; /* no more than the operation has */
} Frame;

static Frame frame_of(const View *view, int64_t max_rows) {
    const Header *header = (const Header *)view->data;
    const int64_t *table = (const int64_t *)(intptr_t)header->table;
    const int64_t num_rows = header->num_rows < max_rows ? header->num_rows : max_rows;
    const Frame frame = {header, table, table + header->slots, (const Sequence *)table,
                         (const Row *)(table + header->rows), num_rows};
    return frame;
}

/* Number of a row's partial results for a key head and a chunk: one for each query head of the key head. */
INLINE int64_t partial_index(const Frame *frame, int64_t kv_head, int64_t chunk, int64_t row) {
    return (kv_head * frame->header->chunks + chunk) * frame->header->num_rows + row;
}

/* The first position that a row sees. `window` counts its own position; 0 is none. A negative one is a chunk's length:
 * the row sees its chunk from the beginning on. */
INLINE int64_t first_seen(int64_t position, int64_t window) {
    if (window < 0) return position - position % -window;
    return window > 0 && position >= window ? position - window + 1 : 0;
}

INLINE const char *element(const View *view, int64_t i, int64_t j, int64_t k) {
    return view->data + (i * view->strides[0] + j * view->strides[1] + k * view->strides[2]) * width_of(view->dtype);
}

/* Place of a slot's key or value in a pool (pages, heads, PAGE, dim). */
INLINE const char *slot_of(const View *pool, int64_t slot, int64_t head) {
    return element(pool, slot / PAGE, head, slot % PAGE);
}

/* `count` values, `stride` apart, to float32. */
static void load_strided(float *to, const char *from, int64_t dtype, int64_t stride, int64_t count) {
    if (stride == 1) {
        load_floats(to, from, dtype, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) load_floats(to + i, from + i * stride * width_of(dtype), dtype, 1);
}

/* Copies row `row` of head `head`, (R, H_kv, dim), to a slot of a pool. */
static void write_row(const View *pool, const View *rows, int64_t row, int64_t head, int64_t slot, int64_t dim) {
    const char *from = element(rows, row, head, 0);
    char *to = (char *)slot_of(pool, slot, head);
    const int64_t stride = rows->strides[2], width = width_of(rows->dtype);
    if (stride == 1 && rows->dtype == pool->dtype) {
        memcpy(to, from, (size_t)(dim * width));
        return;
    }
    float part[PAGE];
    for (int64_t i = 0; i < dim; i += PAGE) {
        const int64_t count = dim - i < PAGE ? dim - i : PAGE;
        load_strided(part, from + i * stride * width, rows->dtype, stride, count);
        store_floats(to + i * width_of(pool->dtype), pool->dtype, part, count);
    }
}

/* Items: heads of rows. */
static int64_t write_items(const Op *op) { return frame_of(&op->views[4], op->shape[0]).num_rows * op->shape[1]; }

/* views: keys pool, values pool, key rows (R, H_kv, D), value rows (R, H_kv, D_v), frame; shape R, H_kv, D, D_v. */
static void write_rows(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const Frame frame = frame_of(&op->views[4], op->shape[0]);
    const int64_t heads = op->shape[1];
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t row = i / heads, head = i % heads, slot = frame.slots[row];
        write_row(&op->views[0], &op->views[2], row, head, slot, op->shape[2]);
        write_row(&op->views[1], &op->views[3], row, head, slot, op->shape[3]);
    }
}
