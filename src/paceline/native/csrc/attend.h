/* The items of attention: a chunk of one key head for some rows of one sequence. */

/* Tiles that any of `count` rows sees. */
static Range tiles_of(const Row *rows, int64_t count, int64_t window) {
    Range tiles = {INT64_MAX, 0};
    for (int64_t i = 0; i < count; i++) {
        tiles.first = least(tiles.first, first_seen(rows[i].own, window) / PAGE);
        tiles.end = most(tiles.end, rows[i].position / PAGE + 1);
    }
    return tiles;
}

/* Rows of a sequence that go together: their items are the key heads, and for each the chunks that they see. */
typedef struct {
    const Sequence *sequence;
    int64_t first_row, num_rows;
    Range tiles, chunks;
} Rows;

/* The first rows from `row` of `sequence` on; none of the frame's, if the sequence has no more. */
INLINE Rows rows_from(const Attention *a, const Sequence *sequence, int64_t row) {
    const int64_t block = item_queries(a->group) / a->group, end = least(sequence->end_row, a->frame.num_rows);
    Rows rows = {sequence, row, most(least(block, end - row), 0), {0, 0}, {0, 0}};
    if (rows.num_rows == 0) return rows;
    rows.tiles = tiles_of(a->frame.rows + row, rows.num_rows, a->window);
    rows.chunks.first = rows.tiles.first / (CHUNK / PAGE);
    rows.chunks.end = (rows.tiles.end - 1) / (CHUNK / PAGE) + 1;
    return rows;
}

/* One item of some rows. */
static void attend_one(const Attention *a, const Rows *rows, int64_t index, const Scratch *s) {
    const int64_t chunks = rows->chunks.end - rows->chunks.first, tiles = CHUNK / PAGE;
    Item item = {rows->sequence, a->frame.rows + rows->first_row, rows->first_row, rows->num_rows,
                 index / chunks, rows->chunks.first + index % chunks, {0, 0}, NULL};
    item.tiles.first = most(rows->tiles.first, item.chunk * tiles);
    item.tiles.end = least(rows->tiles.end, (item.chunk + 1) * tiles);
    item.partials = (float *)(intptr_t)a->frame.header->partials +
                    partial_index(&a->frame, item.head, item.chunk, item.first_row) * a->group *
                        partial_floats(a->value_dim);
    attend_item(a, &item, s);
}

/* Goes through all items and does those in `part`; gives their number. */
static int64_t walk(const Attention *a, Range part, const Scratch *s) {
    int64_t count = 0;
    for (const Sequence *q = a->frame.sequences; q < a->frame.sequences + a->frame.header->num_sequences; q++) {
        Rows rows = rows_from(a, q, q->first_row);
        for (; rows.num_rows > 0; rows = rows_from(a, q, rows.first_row + rows.num_rows)) {
            const int64_t next = count + a->num_kv_heads * (rows.chunks.end - rows.chunks.first);
            for (int64_t i = most(part.first, count); i < least(part.end, next); i++)
                attend_one(a, &rows, i - count, s);
            count = next;
        }
    }
    return count;
}

/* views: out, query (R, H, D), keys pool, values pool, frame, one of combine's, then slopes or distances or none; shape
 * R, H, D, H_kv, D_v; size: window, distances of a head (0: slopes); number: scaling, softcap. */
static Attention attention_of(const Op *op) {
    const int64_t value_dim = op->shape[4], heads = op->shape[3];
    const Attention a = {
        &op->views[1], &op->views[2], &op->views[3],
        op->shape[2], value_dim, round_up(value_dim, LANES),
        heads, op->shape[1] / heads, op->size[0],
        (float)op->number[0], (float)op->number[1],
        &op->views[6], op->size[1],
        frame_of(&op->views[4], op->shape[0]),
    };
    return a;
}

static int64_t attend_items(const Op *op) {
    const Attention a = attention_of(op);
    const Range none = {0, 0};
    return walk(&a, none, NULL);
}

/* Leaves partial results in the frame's buffer. */
static void attend(const Op *op, Worker *worker, Range items) {
    const Attention a = attention_of(op);
    const Scratch s = scratch_of(&a, worker->scratch);
    worker->prepared = NULL;
    walk(&a, items, &s);
}
