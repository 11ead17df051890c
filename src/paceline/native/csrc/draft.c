/* Grows the trees of a draft model's proposal level by level, a recorded forward for each, without Python in between.
 *
 * The same rules as the loop in Python (drafters/_draft_model/modules.py), which runs where there are no recordings. */
#include <math.h>
#include <string.h>

#include "draft.h"
#include "job.h"

/* How to run operations: see paceline_run. */
typedef struct {
    const Table *table;
    int num_workers;
    char *scratch;
    int64_t scratch_bytes;
} Run;

static int64_t slot_of_row(const Draft *draft, int64_t place) {
    const int64_t position = draft->length + place;
    return draft->pages[position / PAGE] * PAGE + position % PAGE;
}

static int64_t depth_of_fed(const Draft *draft, int64_t place) {
    int64_t depth = 1;
    for (int64_t p = draft->fed_parents[place]; p >= 0; p = draft->fed_parents[p]) depth++;
    return depth;
}

/* Writes the tables of a frame whose rows are the last `num_rows` that each request was fed: see frame.h. */
static void describe(Header *header, Draft *const *drafts, int64_t count, int64_t num_rows) {
    int64_t *table = (int64_t *)(intptr_t)header->table;
    Sequence *sequence = (Sequence *)table;
    header->num_rows = num_rows;
    header->num_sequences = count;
    header->rows = count * (int64_t)(sizeof(Sequence) / 8);
    header->slots = header->rows + num_rows * (int64_t)(sizeof(Row) / 8);
    Row *row = (Row *)(table + header->rows);
    int64_t *slot = table + header->slots, *rest = slot + num_rows;
    int64_t first = 0, last = 0;
    for (int64_t d = 0; d < count; d++) {
        const Draft *draft = drafts[d];
        const int64_t num_pages = (draft->length + PAGE - 1) / PAGE;
        const Sequence own = {first, first + draft->num_rows, draft->length, rest - table, rest - table + num_pages,
                              draft->num_fed};
        *sequence++ = own;
        first += draft->num_rows;
        memcpy(rest, draft->pages, (size_t)num_pages * 8);
        rest += num_pages;
        for (int64_t i = 0; i < draft->num_fed; i++) *rest++ = slot_of_row(draft, i);
        for (int64_t i = draft->num_fed - draft->num_rows; i < draft->num_fed; i++, row++) {
            const int64_t depth = depth_of_fed(draft, i);
            row->position = row->own = draft->length + depth - 1;
            row->path = rest - table;
            rest += depth;
            for (int64_t p = i, k = 1; p >= 0; p = draft->fed_parents[p], k++) rest[-k] = p;
            *slot++ = slot_of_row(draft, i);
            last = row->position > last ? row->position : last;
        }
    }
    header->chunks = last / CHUNK + 1;
}

/* Whether no row of a request would let a kernel read or write where it must not. */
static int is_sound(const Draft *draft, int64_t num_pages) {
    if (draft->length < 0 || draft->num_fed < 0 || draft->num_fed > PAGE) return 0;
    if (draft->num_rows < 0 || draft->num_rows > draft->num_fed) return 0;
    for (int64_t i = 0; i < (draft->length + draft->num_fed + PAGE - 1) / PAGE; i++)
        if (draft->pages[i] < 0 || draft->pages[i] >= num_pages) return 0;
    for (int64_t i = 0; i < draft->num_fed; i++)
        if (draft->fed_parents[i] < -1 || draft->fed_parents[i] >= i) return 0;
    return 1;
}

/* Makes a frame the last `num_rows` rows of each tree of fed nodes; `positions` are theirs. 0 if a tree is not sound. */
EXPORT int paceline_describe(Header *header, Draft *const *drafts, int64_t count, int64_t num_pages,
                             int64_t *positions) {
    int64_t num_rows = 0;
    for (int64_t d = 0; d < count; d++) {
        if (!is_sound(drafts[d], num_pages)) return 0;
        num_rows += drafts[d]->num_rows;
    }
    describe(header, drafts, count, num_rows);
    const Row *rows = (const Row *)((const int64_t *)(intptr_t)header->table + header->rows);
    for (int64_t i = 0; i < num_rows; i++) positions[i] = rows[i].position;
    return 1;
}

/* Runs the forward of the rows that the requests were fed last; in which recording. */
static const Recorded *forward(const Model *model, Draft *const *drafts, int64_t count, const Run *run) {
    int64_t num_rows = 0;
    for (int64_t d = 0; d < count; d++) num_rows += drafts[d]->num_rows;
    const Recorded *recorded = model->recorded;
    while (recorded->num_rows < num_rows) recorded++;
    describe(model->header, drafts, count, num_rows);
    const Row *rows = (const Row *)((const int64_t *)(intptr_t)model->header->table + model->header->rows);
    int64_t at = 0;
    for (int64_t d = 0; d < count; d++)
        for (int64_t i = drafts[d]->num_fed - drafts[d]->num_rows; i < drafts[d]->num_fed; i++, at++) {
            const int64_t position = rows[at].position;
            recorded->tokens[at] = drafts[d]->fed_tokens[i];
            recorded->positions[at] = position < model->last_position ? position : model->last_position;
        }
    for (; at < recorded->num_rows; at++) recorded->tokens[at] = recorded->positions[at] = 0;
    const Call call = {run->table, recorded->ops, recorded->num_ops, run->scratch, run->scratch_bytes};
    run_call(&call, run->num_workers);
    return recorded;
}

/* Adds the children of the node in a row: the first of the candidates, with their softmax among all of them. */
static void branch(const Model *model, Draft *draft, int64_t node, const Candidate *found, int64_t count) {
    double weights[CONSIDERED], total = 0.0;
    for (int64_t i = 0; i < count; i++) total += weights[i] = exp(found[i].value - found[0].value);
    const double reached = node < 0 ? 1.0 : draft->reached[node];
    for (int64_t i = 0; i < count && i < model->branch && draft->num_nodes < draft->max_nodes; i++) {
        const double share = weights[i] / total;
        if (!(share > 0.0)) return;
        const int64_t child = draft->num_nodes++;
        draft->tokens[child] = found[i].token;
        draft->parents[child] = node;
        draft->depths[child] = node < 0 ? 1 : draft->depths[node] + 1;
        draft->scores[child] = share;
        draft->reached[child] = reached * share;
        draft->gain += reached * share;
    }
}

/* Tokens that a further level should bring, as much less than this one as this one brings less than the last. */
static double promise(const Draft *draft) {
    if (draft->num_nodes == 0 || draft->num_nodes >= draft->max_nodes) return 0.0;
    if (draft->depths[draft->num_nodes - 1] >= draft->max_depth) return 0.0;
    return draft->gain * fmin(draft->gain / draft->before, 1.0);
}

/* Feeds the best `width` nodes of the newest level, likeliest first, of equals the newer. */
static void feed(Draft *draft, int64_t width) {
    const int64_t end = draft->num_nodes;
    double left[PAGE];
    memcpy(left, draft->reached, sizeof left);
    draft->num_rows = 0;
    for (; draft->num_rows < width && draft->num_rows < end - draft->level_start; draft->num_rows++) {
        int64_t best = end - 1;
        for (int64_t i = end - 2; i >= draft->level_start; i--)
            if (left[i] > left[best]) best = i;
        left[best] = -1.0;
        const int64_t place = draft->num_fed++, parent = draft->parents[best];
        draft->rows[draft->num_rows] = best;
        draft->places[best] = place;
        draft->fed_tokens[place] = draft->tokens[best];
        draft->fed_parents[place] = parent < 0 ? -1 : draft->places[parent];
    }
    draft->level_start = end;
    draft->before = draft->gain;
    draft->gain = 0.0;
}

/* A forward of what was fed, and the children of its rows. */
static void grow(const Model *model, Draft *const *drafts, int64_t count, const Run *run) {
    const Recorded *recorded = forward(model, drafts, count, run);
    Candidate found[PAGE][CONSIDERED];
    int64_t counts[PAGE], end = 0;
    for (int64_t d = 0; d < count; d++) {
        Draft *draft = drafts[d];
        const int64_t node = draft->rows[0], depth = node < 0 ? 0 : draft->depths[node];
        const int64_t num_asked = node < 0 ? 1 : draft->num_rows; /* of tokens that were only read, the last */
        end += draft->num_rows;
        const Scored scored = {recorded->logits, recorded->dtype, recorded->stride, model->vocab_size, NULL};
        best_of(draft, &scored, end - num_asked, num_asked, draft->position + depth, CONSIDERED, found[0], counts);
        for (int64_t i = 0; i < num_asked; i++) branch(model, draft, draft->rows[i], found[i], counts[i]);
    }
}

/* Begins with the tokens that the cache lacks; then they are committed, and nodes are fed behind them. */
static void start(const Model *model, Draft *const *drafts, int64_t count, const Run *run) {
    for (int64_t d = 0; d < count; d++) {
        Draft *draft = drafts[d];
        draft->num_rows = draft->num_fed;
        draft->rows[0] = -1;
        draft->num_nodes = draft->level_start = 0;
        draft->before = 1.0;
        draft->gain = 0.0;
    }
    grow(model, drafts, count, run);
    for (int64_t d = 0; d < count; d++) {
        drafts[d]->length += drafts[d]->num_fed;
        drafts[d]->num_fed = 0;
    }
}

/* Grows the trees of `count` requests, at most PAGE, until a further level should bring less than it must. */
EXPORT void paceline_draft(const Model *model, Draft *const *drafts, int64_t count, const Table *table, int num_workers,
                           char *scratch, int64_t scratch_bytes) {
    const Run run = {table, num_workers, scratch, scratch_bytes};
    Draft *growing[PAGE] = {NULL};
    double min_gain = 0.0;
    for (int64_t d = 0; d < count; d++) {
        growing[d] = drafts[d];
        min_gain += drafts[d]->min_gain;
    }
    start(model, drafts, count, &run);
    for (;;) {
        double promised = 0.0;
        int64_t kept = 0;
        for (int64_t d = 0; d < count; d++) {
            const double own = promise(growing[d]);
            promised += own;
            if (own > 0.0) growing[kept++] = growing[d];
        }
        count = kept;
        if (!(promised > min_gain)) return;
        const int64_t width = model->width < model->max_rows / count ? model->width : model->max_rows / count;
        for (int64_t d = 0; d < count; d++) feed(growing[d], width);
        grow(model, growing, count, &run);
    }
}
