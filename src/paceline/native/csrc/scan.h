/* Linear recurrences: for each head a matrix S (I, J) that every row first shrinks and then adds to.
 *
 *   S = decay * S;  u = value, or by the delta rule factor * (value - key S);  S = S + key u;  result = query S
 *
 * Columns are independent of each other and lie in lanes, sixteen to a block; sums go down the rows of S in one order.
 * So no bit depends on how many rows, sequences or workers there are, or on the instruction set. */

enum { PLAIN, DELTA, RATE }; /* RATE: the decay of each element is exp(rate * decay of its column) */

/* A row as one head takes it. */
typedef struct {
    float *query, *key, *decay; /* I each; the decay of RATE is not used */
    float beta;
    const float *value, *growth; /* of the block: 16 each */
} ScanRow;

typedef struct {
    int64_t heads, key_heads, keys, values, decays; /* H, Hk, I, J, D */
    int64_t kind, depth; /* rows of S in memory: whole SCAN_CHAINS, zeros beyond I */
    int64_t key_floats, value_floats, decay_floats, buffer_floats;
    const View *query, *key, *value, *decay, *factor, *states, *traces;
} Scan;

static Scan scan_of(const Op *op) {
    const int64_t keys = op->shape[2], values = op->shape[3], heads = op->shape[1], key_heads = op->shape[4];
    const int64_t depth = round_up(keys, SCAN_CHAINS);
    const Scan s = {heads, key_heads, keys, values, op->shape[5], op->function, depth,
                    key_heads * keys, heads * values, heads * op->shape[5], depth * MAX_LANES,
                    &op->views[1], &op->views[2], &op->views[3], &op->views[4], &op->views[5], &op->views[6],
                    &op->views[7]};
    return s;
}

static int64_t state_blocks(const Scan *s) { return (s->values + MAX_LANES - 1) / MAX_LANES; }
static int64_t scan_spans(const Scan *s) { return (state_blocks(s) + SCAN_SPAN - 1) / SCAN_SPAN; }

/* A new block of S from the one before. `result` may be NULL: nobody asks what the row reads. */
INLINE void scan_block(const Scan *s, const ScanRow *row, const float *from, float *to, const float *rate, float *result) {
#define DOWN                                          \
    for (int64_t i = 0; i < s->depth; i += SCAN_CHAINS)    \
        UNROLL for (int64_t c = 0; c < SCAN_CHAINS; c++)
#define AT(block) ((block) + (i + c) * MAX_LANES + v)
    for (int64_t v = 0; v < MAX_LANES; v += LANES) {
        const vf zero = vf_set1(0.0f), growth = vf_load(row->growth + v);
        vf u = vf_load(row->value + v), sums[SCAN_CHAINS] = {zero, zero, zero, zero};
        if (s->kind == DELTA) {
            DOWN {
                const vf old = vf_mul(vf_load(AT(from)), vf_set1(row->decay[i + c]));
                vf_store(AT(to), old);
                sums[c] = vf_fused(vf_set1(row->key[i + c]), old, sums[c]);
            }
            const vf known = vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3]));
            u = vf_mul(vf_set1(row->beta), vf_sub(u, known));
            for (int c = 0; c < SCAN_CHAINS; c++) sums[c] = zero;
        } else if (s->kind == RATE) {
            DOWN vf_store(AT(to), vf_mul(vf_load(AT(from)), vf_exp(vf_mul(vf_load(AT(rate)), growth))));
        } else {
            DOWN vf_store(AT(to), vf_mul(vf_load(AT(from)), vf_set1(row->decay[i + c])));
        }
        if (result == NULL) {
            DOWN vf_store(AT(to), vf_fused(vf_set1(row->key[i + c]), u, vf_load(AT(to))));
            continue;
        }
        DOWN {
            const vf now = vf_fused(vf_set1(row->key[i + c]), u, vf_load(AT(to)));
            vf_store(AT(to), now);
            sums[c] = vf_fused(vf_set1(row->query[i + c]), now, sums[c]);
        }
        vf_store(result + v, vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
    }
#undef DOWN
#undef AT
}

/* Where an item keeps its rows and blocks of S. */
typedef struct {
    float *rows;    /* query, key, decay of each, then values and growths of SCAN_SPAN blocks */
    float *rate;    /* of a block */
    float *buffers; /* PAGE + 1 blocks of S */
} ScanScratch;

INLINE int64_t scan_padded(int64_t keys) { return round_up(keys, MAX_LANES); }

static ScanScratch scan_scratch(const Scan *s, const Worker *worker) {
    float *start = (float *)worker->scratch;
    float *rate = start + 2 * PAGE * scan_row_floats(s->keys);
    const ScanScratch scratch = {start, rate, rate + s->buffer_floats};
    return scratch;
}

typedef struct {
    const StateRows *rows;
    const int64_t *table;
    int64_t head, first_block, end_block;
} ScanItem;

/* Decays as factors. */
static void scan_decays(const Scan *s, float *decay) {
    if (s->kind == RATE) return;
    if (s->decays == 1) for (int64_t i = 1; i < s->keys; i++) decay[i] = decay[0];
    for (int64_t i = 0; i < scan_padded(s->keys); i += LANES) vf_store(decay + i, vf_exp(vf_load(decay + i)));
}

/* Columns [first, end) of an item, zeros beyond the last. */
static Range scan_columns(const Scan *s, const ScanItem *item) {
    const Range columns = {item->first_block * MAX_LANES, least(item->end_block * MAX_LANES, s->values)};
    return columns;
}

static ScanRow place_row(const Scan *s, float *at) {
    const int64_t padded = scan_padded(s->keys);
    memset(at, 0, (size_t)scan_row_floats(s->keys) * sizeof *at);
    const ScanRow row = {at, at + padded, at + 2 * padded, 0.0f, at + 3 * padded, at + 3 * padded + SCAN_SPAN * MAX_LANES};
    return row;
}

/* A row by its trace; nobody asks what it reads. */
static ScanRow traced_row(const Scan *s, const ScanItem *item, const float *trace, float *at) {
    ScanRow row = place_row(s, at);
    const Range columns = scan_columns(s, item);
    const int64_t count = columns.end - columns.first;
    const float *values = trace + s->key_floats, *decays = values + s->value_floats, *betas = decays + s->decay_floats;
    memcpy(row.key, trace + item->head / (s->heads / s->key_heads) * s->keys, (size_t)s->keys * 4);
    memcpy((float *)row.value, values + item->head * s->values + columns.first, (size_t)count * 4);
    decays += item->head * s->decays;
    if (s->kind == RATE) memcpy((float *)row.growth, decays + columns.first, (size_t)count * 4);
    else memcpy(row.decay, decays, (size_t)s->decays * 4);
    if (s->kind == DELTA) row.beta = betas[item->head];
    scan_decays(s, row.decay);
    return row;
}

/* A row of this forward: leaves its part of the trace, of which each worker writes what no other does. */
static ScanRow given_row(const Scan *s, const ScanItem *item, int64_t index, float *trace, float *at) {
    ScanRow row = place_row(s, at);
    const Range columns = scan_columns(s, item);
    const int64_t count = columns.end - columns.first, group = s->heads / s->key_heads, key_head = item->head / group;
    const int is_first = item->first_block == 0;
    float *values = trace + s->key_floats, *decays = values + s->value_floats, *betas = decays + s->decay_floats;
    load_strided(row.query, element(s->query, index, key_head, 0), s->query->dtype, s->query->strides[2], s->keys);
    load_strided(row.key, element(s->key, index, key_head, 0), s->key->dtype, s->key->strides[2], s->keys);
    if (is_first && item->head % group == 0) memcpy(trace + key_head * s->keys, row.key, (size_t)s->keys * 4);
    load_strided((float *)row.value, element(s->value, index, item->head, columns.first), s->value->dtype,
                 s->value->strides[2], count);
    memcpy(values + item->head * s->values + columns.first, row.value, (size_t)count * 4);
    decays += item->head * s->decays;
    if (s->kind == RATE) {
        load_strided((float *)row.growth, element(s->decay, index, item->head, columns.first), s->decay->dtype,
                     s->decay->strides[2], count);
        memcpy(decays + columns.first, row.growth, (size_t)count * 4);
    } else {
        load_strided(row.decay, element(s->decay, index, item->head, 0), s->decay->dtype, s->decay->strides[2],
                     s->decays);
        if (is_first) memcpy(decays, row.decay, (size_t)s->decays * 4);
    }
    if (s->kind == DELTA) {
        load_floats(&row.beta, element(s->factor, index, item->head, 0), s->factor->dtype, 1);
        if (is_first) betas[item->head] = row.beta;
    }
    scan_decays(s, row.decay);
    return row;
}

/* The part of a row that belongs to a block of the item. */
INLINE ScanRow of_block(const ScanRow *row, int64_t block) {
    ScanRow part = *row;
    part.value += block * MAX_LANES, part.growth += block * MAX_LANES;
    return part;
}

/* The tree's rows for one block, each from its parent's S, which its last child takes over. */
static void scan_tree(const Op *op, const Scan *s, const ScanItem *item, const ScanRow *given, int64_t block,
                      const ScanScratch *scratch, float *state) {
    const StateRows *rows = item->rows;
    const int64_t count = rows->first + rows->num_rows, *parents = item->table + rows->parents;
    int64_t last_child[PAGE + 1], buffers[PAGE + 1] = {0}, free[PAGE + 1], num_free = PAGE;
    for (int64_t i = 0; i < PAGE; i++) free[i] = PAGE - i;
    for (int64_t r = -1; r < count; r++) last_child[r + 1] = -1;
    for (int64_t r = 0; r < count; r++) last_child[parents[r] + 1] = r;
    for (int64_t r = 0; r < count; r++) {
        const int64_t parent = parents[r] + 1, own = buffers[parent];
        const ScanRow row = of_block(given + r, block);
        buffers[r + 1] = last_child[parent] == r ? own : free[--num_free];
        float result[MAX_LANES], *to = scratch->buffers + buffers[r + 1] * s->buffer_floats;
        const float *from = scratch->buffers + own * s->buffer_floats;
        if (r < rows->first) scan_block(s, &row, from, to, scratch->rate, NULL);
        else {
            const int64_t column = (item->first_block + block) * MAX_LANES;
            scan_block(s, &row, from, to, scratch->rate, result);
            store_floats((char *)element(&op->views[0], rows->first_row + r - rows->first, item->head, column),
                         op->views[0].dtype, result, least(MAX_LANES, s->values - column));
        }
        if (last_child[r + 1] < 0 && !(rows->is_kept && r == count - 1)) free[num_free++] = buffers[r + 1];
    }
    if (rows->is_kept && count > 0)
        memcpy(state, scratch->buffers + buffers[count] * s->buffer_floats, (size_t)s->buffer_floats * 4);
}

/* Loads the rate of a block, (I, J), zeros beyond the last column. */
static void load_rate(const Scan *s, int64_t column, float *rate) {
    memset(rate, 0, (size_t)s->buffer_floats * 4);
    for (int64_t i = 0; i < s->keys; i++)
        load_strided(rate + i * MAX_LANES, element(s->factor, i, column, 0), s->factor->dtype, s->factor->strides[1],
                     least(MAX_LANES, s->values - column));
}

static void scan_item(const Op *op, const Scan *s, const ScanItem *item, const ScanScratch *scratch) {
    const StateRows *rows = item->rows;
    const int64_t size = scan_row_floats(s->keys), count = rows->first + rows->num_rows;
    ScanRow accepted[PAGE], given[PAGE];
    for (int64_t i = 0; i < rows->num_accepted; i++) {
        const float *trace = (const float *)trace_of(s->traces, rows, 1, item->table[rows->accepted + i]);
        accepted[i] = traced_row(s, item, trace, scratch->rows + i * size);
    }
    for (int64_t r = 0; r < count; r++) {
        float *trace = (float *)trace_of(s->traces, rows, 0, r), *at = scratch->rows + (PAGE + r) * size;
        given[r] = r < rows->first ? traced_row(s, item, trace, at)
                                   : given_row(s, item, rows->first_row + r - rows->first, trace, at);
    }
    for (int64_t block = 0; block < item->end_block - item->first_block; block++) {
        const int64_t number = item->first_block + block;
        float *state = (float *)s->states->data + rows->slot * s->states->strides[0] +
                       item->head * s->states->strides[1] + number * s->states->strides[2];
        if (s->kind == RATE) load_rate(s, number * MAX_LANES, scratch->rate);
        if (rows->is_fresh) memset(scratch->buffers, 0, (size_t)s->buffer_floats * 4);
        else memcpy(scratch->buffers, state, (size_t)s->buffer_floats * 4);
        for (int64_t i = 0; i < rows->num_accepted; i++) {
            const ScanRow row = of_block(accepted + i, block);
            scan_block(s, &row, scratch->buffers, scratch->buffers, scratch->rate, NULL);
        }
        if (is_changed(rows)) memcpy(state, scratch->buffers, (size_t)s->buffer_floats * 4);
        scan_tree(op, s, item, given, block, scratch, state);
    }
}

/* Items: spans of blocks of a sequence's heads. */
static int64_t scan_items(const Op *op) {
    const Scan s = scan_of(op);
    return state_frame_of(op).num_sequences * s.heads * scan_spans(&s);
}

/* views: result (R, H, J), query and key (R, Hk, I), value (R, H, J), logarithms of decays (R, H, D), then by function
 * nothing, (R, H) factors of the delta rule or (I, J) rates; states (slots, H, blocks, I rounded up to SCAN_CHAINS, 16) and traces
 * (slots, 2, PAGE, floats) in float32. shape R, H, I, J, Hk, D; size: address of the header. */
static void scan(const Op *op, Worker *worker, Range items) {
    const Scan s = scan_of(op);
    const StateFrame frame = state_frame_of(op);
    const ScanScratch scratch = scan_scratch(&s, worker);
    const int64_t spans = scan_spans(&s);
    worker->prepared = NULL;
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t first = i % spans * SCAN_SPAN;
        const ScanItem item = {frame.sequences + i / spans / s.heads, frame.table, i / spans % s.heads, first,
                               least(first + SCAN_SPAN, state_blocks(&s))};
        scan_item(op, &s, &item, &scratch);
    }
}
