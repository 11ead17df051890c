/* Canonical attention: what is added up for a row, and in which order, follows from its position, the window and the
 * keys and values on its path; never from other rows, slots, workers, or how rows are gathered.
 *
 * Positions are cut into tiles of PAGE and chunks of CHUNK, both from position 0. A query (one head of a row) goes
 * through the tiles of a chunk in ascending order and keeps a running maximum, sum and weighted values; combine.h
 * adds up the chunks. A score is one sum over the dimensions in ascending order, in a lane of its key; values are
 * added in the order of their positions. How many queries and keys share registers changes no sum. What a query
 * does not see is never multiplied: a slot there may hold NaN. What is added to a score by distance is a function of
 * the query's head, its position and the key's.
 *
 * An item of work is a chunk of one key head for some rows of one sequence. It loads a tile's keys, transposed to
 * float32, and its values once for all its queries. Keys that are not committed stand anywhere in the pool and are on
 * some queries' paths only: each gives its score to all queries once, and a query picks those on its path. */

typedef struct {
    const View *query, *keys, *values;
    int64_t dim, value_dim, width; /* width: value_dim in whole vectors */
    int64_t num_kv_heads, group, window;
    float scaling, softcap;
    const View *relative;  /* slopes (H) or distances (H, num_distances), float32; no data: nothing */
    int64_t num_distances; /* 0: slopes */
    Frame frame;
} Attention;

typedef struct {
    float *keys;         /* (dim, PAGE) */
    float *values;       /* (PAGE, width) */
    float *draft_values; /* (PAGE, width) */
    float *scores;       /* (GROUP_ROWS, PAGE), then weights */
    float *query;        /* (queries, dim) scaled */
    float *draft_scores; /* (queries, PAGE) */
    Range *seen;         /* (queries) places of the current tile */
} Scratch;

typedef struct {
    const Sequence *sequence;
    const Row *rows;
    int64_t first_row, num_rows, head, chunk;
    Range tiles;
    float *partials; /* (queries, partial_floats) */
} Item;

typedef struct {
    int64_t start, committed; /* its first position; how many of its places are committed */
    Factors values;           /* (PAGE, value_dim) */
} Tile;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static Scratch scratch_of(const Attention *a, char *memory) {
    const int64_t keys = PAGE * round_up(a->dim, 2 * MAX_LANES), values = PAGE * round_up(a->value_dim, MAX_LANES);
    const int64_t queries = item_queries(a->group);
    Scratch s;
    s.keys = (float *)memory;
    s.values = s.keys + keys;
    s.draft_values = s.values + values;
    s.scores = s.draft_values + values;
    s.draft_scores = s.scores + PAGE * MAX_LANES;
    s.query = s.draft_scores + queries * PAGE;
    s.seen = (Range *)(s.query + queries * round_up(a->dim, MAX_LANES));
    return s;
}

/* The place among the drafts of the key at a position that is not committed. */
INLINE int64_t draft_at(const Attention *a, const Item *item, int64_t query, int64_t position) {
    const Row *row = &item->rows[query / a->group];
    return a->frame.table[row->path + position - item->sequence->committed];
}

static const float places[MAX_LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Adds to a query's scores of places `range`, whole vectors, what follows from how far the keys are. `ahead`: of the
 * tile's first place, how far it is behind the query; keys after the query are counted as its own place. */
static void add_relative(const Attention *a, int64_t head, int64_t ahead, Range range, float *scores) {
    if (a->num_distances == 0) {
        const vf slope = vf_set1(*(const float *)element(a->relative, head, 0, 0));
        for (int64_t i = range.first; i < range.end; i += LANES) {
            const vf distance = vf_add(vf_load(places), vf_set1((float)(i - ahead)));
            vf_store(scores + i, vf_add(vf_load(scores + i), vf_mul(slope, distance)));
        }
        return;
    }
    const float *added = (const float *)element(a->relative, head, 0, 0);
    for (int64_t i = range.first; i < range.end; i++)
        scores[i] += added[least(most(ahead - i, 0), a->num_distances - 1)];
}

/* Turns a query's scores in a tile into weights, and brings its partial result to the new maximum. */
static void weigh(const Attention *a, Range seen, int64_t head, int64_t ahead, float *scores, float *partial) {
    const int64_t first = seen.first / MAX_LANES * MAX_LANES, end = round_up(seen.end, MAX_LANES);
    const vf lowest = vf_set1(-INFINITY);
    vf top = lowest;
    for (int64_t i = first; a->softcap > 0.0f && i < end; i += LANES) {
        const vf cap = vf_set1(a->softcap);
        vf_store(scores + i, vf_mul(vf_tanh(vf_div(vf_load(scores + i), cap)), cap));
    }
    const Range whole = {first, end};
    if (a->relative->data != NULL) add_relative(a, head, ahead, whole, scores);
    for (int64_t i = first; i < end; i += LANES) {
        vf score = vf_load(scores + i);
        if (i < seen.first || i + LANES > seen.end) {
            const vf place = vf_add(vf_load(places), vf_set1((float)i));
            score = vf_select_less(place, vf_set1((float)seen.first), lowest, score);
            score = vf_select_less(place, vf_set1((float)seen.end), score, lowest);
        }
        top = vf_max(score, top);
        vf_store(scores + i, score);
    }
    float *maximum = partial + a->width, *sum = maximum + 1;
    const float highest = vf_highest(top) > *maximum ? vf_highest(top) : *maximum;
    WideSum total;
    for (int v = 0; v < SUM_VECS; v++) total.lanes[v] = vf_set1(0.0f);
    for (int64_t i = first; i < end; i += MAX_LANES) {
        UNROLL for (int v = 0; v < SUM_VECS; v++) {
            const vf weight = vf_exp(vf_sub(vf_load(scores + i + v * LANES), vf_set1(highest)));
            total.lanes[v] = vf_add(total.lanes[v], weight);
            vf_store(scores + i + v * LANES, weight);
        }
    }
    if (highest > *maximum) {
        const vf scale = vf_exp(vf_set1(*maximum - highest));
        for (int64_t i = 0; i < a->width; i += LANES) vf_store(partial + i, vf_mul(vf_load(partial + i), scale));
        *sum = vf_lane(vf_mul(vf_set1(*sum), scale));
        *maximum = highest;
    }
    *sum += sum_across(total);
}

/* Adds the weighted values of one query's drafts in a tile; drafts that follow each other at a time. */
static void add_drafts(const Attention *a, const Item *item, const Tile *tile, const Scratch *s, int64_t query,
                       const float *weights, float *out) {
    const Range seen = s->seen[query];
    int64_t next;
    for (int64_t i = most(seen.first, tile->committed); i < seen.end; i = next) {
        const int64_t draft = draft_at(a, item, query, tile->start + i);
        for (next = i + 1; next < seen.end; next++)
            if (draft_at(a, item, query, tile->start + next) != draft + next - i) break;
        const Factors values = {(const char *)(s->draft_values + draft * a->width), F32, a->width};
        const Range run = {0, next - i};
        product(1, a->width, weights + i, 0, values, run, out, 0, 1);
    }
}

/* Adds the weighted values of a tile for some queries: together where all see the same places, alone around them. */
static void add_values(const Attention *a, const Item *item, const Tile *tile, const Scratch *s, int64_t query,
                       int rows, Range joint) {
    const int64_t stride = partial_floats(a->value_dim);
    float *out = item->partials + query * stride;
    if (joint.first >= joint.end) joint.first = joint.end = PAGE;
    for (int r = 0; r < rows; r++) {
        const Range seen = s->seen[query + r];
        const Range before = {seen.first, least(joint.first, least(seen.end, tile->committed))};
        product(1, a->width, s->scores + r * PAGE, 0, tile->values, before, out + r * stride, 0, 1);
    }
    product(rows, a->width, s->scores, PAGE, tile->values, joint, out, stride, 1);
    for (int r = 0; r < rows; r++) {
        const Range after = {joint.end, least(s->seen[query + r].end, tile->committed)};
        product(1, a->width, s->scores + r * PAGE, 0, tile->values, after, out + r * stride, 0, 1);
        add_drafts(a, item, tile, s, query + r, s->scores + r * PAGE, out + r * stride);
    }
}

/* One tile for the queries `query` and the following, `rows` of them. */
static void attend_group(const Attention *a, const Item *item, const Tile *tile, const Scratch *s, int64_t query,
                         int rows) {
    Range any = {PAGE, 0}, joint = {0, tile->committed};
    for (int r = 0; r < rows; r++) {
        const Range seen = s->seen[query + r];
        any.first = least(any.first, seen.first), any.end = most(any.end, seen.end);
        joint.first = most(joint.first, seen.first), joint.end = least(joint.end, seen.end);
    }
    const int64_t first = any.first / LANES * LANES, end = round_up(least(any.end, tile->committed), LANES);
    const Factors keys = {(const char *)(s->keys + first), F32, PAGE};
    const Range steps = {0, a->dim};
    if (first < end)
        product(rows, end - first, s->query + query * a->dim, a->dim, keys, steps, s->scores + first, PAGE, 0);
    for (int r = 0; r < rows; r++) {
        const Range seen = s->seen[query + r];
        float *scores = s->scores + r * PAGE;
        for (int64_t i = most(seen.first, tile->committed); i < seen.end; i++)
            scores[i] = s->draft_scores[(query + r) * PAGE + draft_at(a, item, query + r, tile->start + i)];
        const int64_t head = item->head * a->group + (query + r) % a->group;
        const int64_t ahead = item->rows[(query + r) / a->group].position - tile->start;
        if (seen.first < seen.end)
            weigh(a, seen, head, ahead, scores, item->partials + (query + r) * partial_floats(a->value_dim));
    }
    add_values(a, item, tile, s, query, rows, joint);
}

/* Scores of all drafts for all queries, and the drafts' values. */
static void load_drafts(const Attention *a, const Item *item, const Scratch *s) {
    const int64_t *slots = a->frame.table + item->sequence->drafts, count = item->sequence->num_drafts;
    for (int64_t i = 0; i < count; i += LANES) {
        const char *from[LANES]; /* the last one fills the block */
        for (int j = 0; j < LANES; j++) from[j] = slot_of(a->keys, slots[least(i + j, count - 1)], item->head);
        transpose_keys(from, a->keys->dtype, a->dim, s->keys + i);
    }
    for (int64_t i = 0; i < count; i++)
        load_value(a->values, slot_of(a->values, slots[i], item->head), a->value_dim,
                   s->draft_values + i * a->width);
    const Factors keys = {(const char *)s->keys, F32, PAGE};
    const Range steps = {0, a->dim};
    const int64_t queries = item->num_rows * a->group;
    for (int64_t query = 0, rows; query < queries; query += rows) {
        rows = group_rows(queries - query);
        product((int)rows, round_up(count, LANES), s->query + query * a->dim, a->dim, keys, steps,
                s->draft_scores + query * PAGE, PAGE, 0);
    }
}

/* Scales the queries, clears their partial results. */
static void begin(const Attention *a, const Item *item, const Scratch *s) {
    const int64_t stride = partial_floats(a->value_dim);
    for (int64_t i = 0; i < item->num_rows * a->group; i++) {
        float *query = s->query + i * a->dim, *partial = item->partials + i * stride;
        const char *from = element(a->query, item->first_row + i / a->group, item->head * a->group + i % a->group, 0);
        load_strided(query, from, a->query->dtype, a->query->strides[2], a->dim);
        for (int64_t d = 0; d < a->dim; d++) query[d] *= a->scaling;
        for (int64_t d = 0; d < stride; d++) partial[d] = 0.0f;
        partial[a->width] = LOWEST;
    }
}

/* What the queries see of a tile, and all of it together. */
static Range look(const Attention *a, const Item *item, const Tile *tile, const Scratch *s) {
    Range any = {PAGE, 0};
    for (int64_t i = 0; i < item->num_rows; i++) {
        const Row *row = &item->rows[i];
        Range seen = {most(first_seen(row->own, a->window) - tile->start, 0),
                      least(row->position + 1 - tile->start, PAGE)};
        if (seen.first >= seen.end) seen.first = PAGE, seen.end = 0; /* neutral wherever ranges meet */
        for (int64_t g = 0; g < a->group; g++) s->seen[i * a->group + g] = seen;
        any.first = least(any.first, seen.first), any.end = most(any.end, seen.end);
    }
    return any;
}

static void attend_item(const Attention *a, const Item *item, const Scratch *s) {
    const int64_t *pages = a->frame.table + item->sequence->pages, committed = item->sequence->committed;
    const int64_t queries = item->num_rows * a->group;
    begin(a, item, s);
    if (item->tiles.end * PAGE > committed && item->sequence->num_drafts > 0) load_drafts(a, item, s);
    for (int64_t t = item->tiles.first; t < item->tiles.end; t++) {
        Tile tile = {t * PAGE, most(least(committed - t * PAGE, PAGE), 0), {NULL, F32, 0}};
        Range range = look(a, item, &tile, s);
        range.end = least(range.end, tile.committed);
        if (range.first < range.end) {
            const int64_t ahead = (t + 1) * PAGE < committed ? pages[t + 1] - pages[t] : 0;
            load_keys(a->keys, pages[t], item->head, range, a->dim, bytes_of(a->keys, ahead), s->keys);
            tile.values = load_values(a->values, pages[t], item->head, range, a->value_dim, bytes_of(a->values, ahead),
                                      queries <= GROUP_ROWS, s->values);
        }
        for (int64_t query = 0, rows; query < queries; query += rows) {
            rows = group_rows(queries - query);
            attend_group(a, item, &tile, s, query, (int)rows);
        }
    }
}
