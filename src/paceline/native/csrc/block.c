/* A block head's proposals: its recorded forward, and the trees of what it said, without Python in between.
 *
 * The same rules as drafters/_block/growing.py, which runs where there is no recording. */
#include <math.h>
#include <string.h>

#include "block.h"
#include "job.h"

/* A child that may become a node. */
typedef struct {
    double reached, share;
    int64_t parent, token, slot; /* the token as the target numbers it */
} Branch;

typedef struct {
    int64_t count; /* -1: not drawn yet */
    Candidate candidates[OFFERED];
} Offer;

typedef struct {
    const BlockModel *model;
    Draft *draft;
    int64_t row; /* of its first proposing slot */
    Offer offers[PAGE];
    Branch branches[(PAGE + 1) * CHILDREN];
    int64_t num_branches;
} Growth;

/* Writes the tables of a frame whose rows are a block behind each request's committed positions: see frame.h. What a
 * row sees is what lies before its position: unless blocks are causal, all their rows stand at the end. */
static void describe(const BlockModel *model, Draft *const *drafts, int64_t count) {
    Header *header = model->header;
    int64_t *table = (int64_t *)(intptr_t)header->table;
    const int64_t size = model->block_size, num_rows = count * size;
    Sequence *sequence = (Sequence *)table;
    header->num_rows = num_rows;
    header->num_sequences = count;
    header->rows = count * (int64_t)(sizeof(Sequence) / 8);
    header->slots = header->rows + num_rows * (int64_t)(sizeof(Row) / 8);
    Row *row = (Row *)(table + header->rows);
    int64_t *slot = table + header->slots, *rest = slot + num_rows, last = 0;
    for (int64_t d = 0; d < count; d++) {
        const Draft *draft = drafts[d];
        const int64_t num_pages = (draft->length + PAGE - 1) / PAGE, end = draft->length + size - 1;
        const Sequence own = {d * size, (d + 1) * size, draft->length, rest - table, rest - table + num_pages, size};
        *sequence++ = own;
        memcpy(rest, draft->pages, (size_t)num_pages * 8);
        rest += num_pages;
        for (int64_t i = 0; i < size; i++) {
            const int64_t position = draft->length + i;
            rest[i] = *slot++ = draft->pages[position / PAGE] * PAGE + position % PAGE;
            rest[size + i] = i; /* each row's path, as far as its position */
            row->position = row->own = model->is_causal ? position : end;
            row++->path = rest + size - table;
        }
        rest += 2 * size;
        last = end > last ? end : last;
    }
    header->chunks = last / CHUNK + 1;
}

static void feed(const BlockModel *model, Draft *const *drafts, int64_t count) {
    for (int64_t d = 0; d < count; d++) {
        model->tokens[d * model->block_size] = drafts[d]->fed_tokens[0];
        for (int64_t i = 0; i < model->block_size; i++)
            model->positions[d * model->block_size + i] = drafts[d]->length + i;
    }
}

static const float *said_by(const Growth *growth, int64_t slot) {
    const BlockModel *model = growth->model;
    return model->said + (growth->row + slot) * (model->num_logits + model->transition.num_features);
}

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static float *state_of(const Transition *how, int64_t node) { return how->states + (node + 1) * how->state_size; }

/* The state behind a node and the vector (r,) that re-scores its children: see Transition.step in Python. */
static const float *step(const Growth *growth, int64_t parent, int64_t node, int64_t token, int64_t slot) {
    const Transition *how = &growth->model->transition;
    const int64_t r = how->rank, s = how->state_size;
    const float *before = how->w1 + (token < growth->model->vocab_size ? token : 0) * r;
    if (how->num_features == 0) return before;
    float *joint = how->states + (PAGE + 1) * s, *both = joint + how->num_features, *vector = both + s + r;
    const float *old = node < 0 ? NULL : state_of(how, parent), *features = said_by(growth, slot) + growth->model->num_logits;
    for (int64_t i = 0; i < s; i++) both[i] = old == NULL ? 0.0f : old[i];
    memcpy(both + s, before, (size_t)r * 4);
    for (int64_t f = 0; f < how->num_features; f++) {
        const float *row = how->joint + f * (s + r);
        float sum = 0.0f;
        for (int64_t i = 0; i < s + r; i++) sum += row[i] * both[i];
        joint[f] = features[f] + sum;
    }
    if (s == 0) {
        for (int64_t i = 0; i < r; i++) vector[i] = sigmoid(joint[i]) * before[i];
        return vector;
    }
    float *state = state_of(how, node);
    for (int64_t i = 0; i < r; i++) {
        const float share = sigmoid(joint[i]);
        state[i] = share * both[i] + (1.0f - share) * tanhf(joint[r + i]);
        vector[i] = tanhf(joint[2 * r + i]);
    }
    return vector;
}

/* Adds columns (r, size), each by its factor, to `to`. By columns, so that the compiler may add several at a time. */
static void add_columns(float *to, const float *columns, const float *factors, int64_t rank, int64_t size) {
    for (int64_t k = 0; k < rank; k++)
        for (int64_t i = 0; i < size; i++) to[i] += factors[k] * columns[k * size + i];
}

static double temperature_of(const Growth *growth) {
    return growth->draft->temperature > 0.0 ? growth->draft->temperature : 1.0;
}

/* What a transition adds to the score of a candidate. */
static double bias_of(const Growth *growth, int64_t own, const float *vector) {
    const Transition *how = &growth->model->transition;
    float sum = 0.0f;
    for (int64_t k = 0; k < how->rank; k++) sum += how->w2[own * how->rank + k] * vector[k];
    return (double)sum / temperature_of(growth);
}

/* A slot's candidates for the place where it stands, drawn once: the best behind the first node that asks. */
static const Offer *offer_of(Growth *growth, int64_t slot, const float *vector) {
    Offer *offer = &growth->offers[slot];
    const BlockModel *model = growth->model;
    if (offer->count >= 0) return offer;
    const Transition *how = &model->transition;
    memcpy(how->scored, said_by(growth, slot), (size_t)model->num_logits * 4);
    if (how->rank > 0) add_columns(how->scored, how->columns, vector, how->rank, model->num_logits);
    const Scored scored = {(const char *)how->scored, F32, model->num_logits, model->num_logits, model->ids};
    best_of(growth->draft, &scored, 0, 1, growth->draft->position + slot, OFFERED, offer->candidates, &offer->count);
    for (int64_t i = 0; i < offer->count && how->rank > 0; i++)
        offer->candidates[i].value -= bias_of(growth, offer->candidates[i].token, vector);
    return offer;
}

/* Scores of a slot's candidates behind a node. 0 where they are no numbers. */
static int score(const Growth *growth, const Offer *offer, const float *vector, double *scores) {
    int is_any = 0;
    for (int64_t i = 0; i < offer->count; i++) {
        scores[i] = offer->candidates[i].value;
        if (growth->model->transition.rank > 0) scores[i] += bias_of(growth, offer->candidates[i].token, vector);
        if (isnan(scores[i])) return 0;
        is_any |= isfinite(scores[i]);
    }
    return is_any;
}

/* Adds what may follow a node, or the pending token (-1), to the branches. */
static void branch(Growth *growth, int64_t parent, int64_t node, int64_t token, double reached, int64_t slot) {
    double scores[OFFERED], total = 0.0, top = -INFINITY;
    const float *vector = growth->model->transition.rank > 0 ? step(growth, parent, node, token, slot) : NULL;
    const Offer *offer = offer_of(growth, slot, vector);
    if (!score(growth, offer, vector, scores)) return;
    for (int64_t i = 0; i < offer->count; i++) top = scores[i] > top ? scores[i] : top;
    for (int64_t i = 0; i < offer->count; i++) total += exp(scores[i] - top);
    for (int64_t n = 0; n < CHILDREN && n < offer->count; n++) {
        int64_t best = 0;
        for (int64_t i = 1; i < offer->count; i++)
            if (scores[i] > scores[best]) best = i;
        const double share = exp(scores[best] - top) / total;
        const int64_t own = offer->candidates[best].token, *ids = growth->model->ids;
        scores[best] = -INFINITY;
        if (!(reached * share >= growth->model->least)) return;
        const Branch found = {reached * share, share, node, ids == NULL ? own : ids[own], slot};
        growth->branches[growth->num_branches++] = found;
    }
}

/* The likeliest branch becomes a node, of equals the older; 0 if there is none. */
static int add(Growth *growth, int64_t depth) {
    Draft *draft = growth->draft;
    int64_t best = -1;
    for (int64_t i = 0; i < growth->num_branches; i++)
        if (growth->branches[i].reached > (best < 0 ? 0.0 : growth->branches[best].reached)) best = i;
    if (best < 0) return 0;
    const Branch found = growth->branches[best];
    growth->branches[best].reached = 0.0;
    const int64_t node = draft->num_nodes++;
    draft->tokens[node] = found.token;
    draft->parents[node] = found.parent;
    draft->depths[node] = found.slot + 1;
    draft->scores[node] = found.share;
    if (found.slot + 1 < depth) branch(growth, found.parent, node, found.token, found.reached, found.slot + 1);
    return 1;
}

static void grow(const BlockModel *model, Draft *draft, int64_t row) {
    Growth growth;
    growth.model = model;
    growth.draft = draft;
    growth.row = row;
    growth.num_branches = 0;
    for (int64_t i = 0; i < PAGE; i++) growth.offers[i].count = -1;
    const int64_t slots = model->block_size - model->first_slot;
    const int64_t depth = draft->max_depth < slots ? draft->max_depth : slots;
    draft->num_nodes = 0;
    if (depth <= 0 || draft->max_nodes <= 0) return;
    branch(&growth, -1, -1, draft->fed_tokens[0], 1.0, 0);
    while (draft->num_nodes < draft->max_nodes && add(&growth, depth)) {}
}

/* The trees of `count` requests, whose pending tokens are their first fed ones; their pages have room for a block. */
EXPORT void paceline_block(const BlockModel *model, Draft *const *drafts, int64_t count, const Table *table,
                           int num_workers, char *scratch, int64_t scratch_bytes) {
    describe(model, drafts, count);
    feed(model, drafts, count);
    const Call call = {table, model->ops, model->num_ops, scratch, scratch_bytes};
    run_call(&call, num_workers);
    for (int64_t d = 0; d < count; d++) grow(model, drafts[d], d * model->block_size + model->first_slot);
}
