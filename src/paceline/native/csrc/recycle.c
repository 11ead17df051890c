/* The table of the drafter `recycle`: what tokens and pairs of them were followed by, and trees grown from that.
 *
 * Rows come one for each token, then one for each slot of a pair, which knows whose it is. The same rules as in Python
 * (drafters/_recycling/table.py), which is used where there are no kernels. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "recycle.h"

enum { SAMPLED = 4096, MAX_WIDTH = 64, BLOCK = 32 };

static const float NOTHING = 18.0f; /* below the peak logit: 4096 of those weigh 1e-4 of it at most */

static int is_token(const Recycled *table, int64_t token) { return token >= 0 && token < table->vocab_size; }

/* The row of a pair of tokens, emptied if it was another's. */
static int64_t claim(const Recycled *table, int64_t before, int64_t last) {
    const int64_t pair = before * table->vocab_size + last, row = table->vocab_size + pair % table->num_slots;
    if (table->pairs[row] != pair) {
        table->chances[row * table->width] = 0.0f;
        table->followed[row] = -1;
        table->pairs[row] = pair;
    }
    return row;
}

/* Learns what follows what in `count` tokens; `before` stands in front of them. */
EXPORT void paceline_recycle_read(const Recycled *table, const int64_t *text, int64_t count, int64_t before) {
    for (int64_t i = 0; i + 1 < count; before = text[i++]) {
        if (!is_token(table, before) || !is_token(table, text[i]) || !is_token(table, text[i + 1])) continue;
        table->followed[text[i]] = (int32_t)text[i + 1];
        table->followed[claim(table, before, text[i])] = (int32_t)text[i + 1];
    }
}

/* Values to e^x within 3e-6 of itself, for x <= 0; next to nothing below -87. */
static void to_weights(float *values, float peak, float least) {
    int32_t bits[BLOCK];
    float powers[BLOCK], rests[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        const float x = (values[i] < least ? values[i] : least) - peak;
        const float bounded = x > -87.0f ? x : -87.0f; /* NaN too */
        const int32_t n = (int32_t)(bounded * 1.44269504f - 0.5f);
        rests[i] = bounded - (float)n * 0.69314718f;
        bits[i] = (n + 127) * (1 << 23);
    }
    memcpy(powers, bits, sizeof powers); /* in a loop of its own, or none of this would be vectors */
    for (int i = 0; i < BLOCK; i++) {
        const float r = rests[i];
        values[i] = (1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120)))))) * powers[i];
    }
}

static int any_above(const float *values, float bar) {
    int above = 0;
    for (int i = 0; i < BLOCK; i++) above |= values[i] > bar;
    return above;
}

/* The `width` largest of some logits, the best first, of equals the lower; `values` are theirs. */
static void find_largest(const float *logits, int64_t size, int64_t width, int32_t *tokens, float *values) {
    int64_t count = 0;
    for (int64_t i = 0; i < size; i++) {
        if (count == width) {
            while (i + BLOCK <= size && !any_above(logits + i, values[width - 1])) i += BLOCK;
            while (i < size && !(logits[i] > values[width - 1])) i++;
            if (i == size) return;
        }
        int64_t place = count < width ? count++ : width - 1;
        for (; place > 0 && values[place - 1] < logits[i]; place--) {
            values[place] = values[place - 1];
            tokens[place] = tokens[place - 1];
        }
        values[place] = logits[i];
        tokens[place] = (int32_t)i;
    }
}

/* The sum of all weights, each cut at that of `least`, estimated as in sampling/topk.py. */
static float sum_of_weights(const float *logits, int64_t size, float peak, float least) {
    const int64_t stride = size / SAMPLED > 1 ? size / SAMPLED : 1;
    float sums[BLOCK] = {0.0f}, part[BLOCK], total = 0.0f;
    for (int64_t i = 0; i < size; i += BLOCK * stride) {
        if (stride == 1 && i + BLOCK <= size) memcpy(part, logits + i, sizeof part);
        else
            for (int64_t j = 0; j < BLOCK; j++) part[j] = i + j * stride < size ? logits[i + j * stride] : -FLT_MAX;
        if (!any_above(part, peak - NOTHING)) continue;
        to_weights(part, peak, least);
        for (int64_t j = 0; j < BLOCK; j++) sums[j] += part[j];
    }
    for (int64_t j = 0; j < BLOCK; j++) total += sums[j];
    return total * (float)stride;
}

/* Logits of the largest to their chances. */
static void to_chances(const float *logits, int64_t size, int64_t width, float *values) {
    const float peak = values[0], least = values[width - 1];
    float weights[(MAX_WIDTH + BLOCK - 1) / BLOCK * BLOCK] = {0.0f}, kept = 0.0f;
    memcpy(weights, values, (size_t)width * sizeof *values);
    for (int64_t k = 0; k < width; k += BLOCK) to_weights(weights + k, peak, peak);
    for (int64_t k = 0; k < width; k++) kept += weights[k];
    const float all = sum_of_weights(logits, size, peak, least) + kept - (float)width * weights[width - 1];
    for (int64_t k = 0; k < width; k++) values[k] = weights[k] / (all > kept ? all : kept);
}

/* Keeps what the target thought behind some pairs of tokens, from rows of its logits (n, vocab_size); the last stays. */
EXPORT void paceline_recycle_learn(const Recycled *table, const float *logits, const int64_t *rows,
                                   const int64_t *before, const int64_t *last, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (!is_token(table, before[i]) || !is_token(table, last[i])) continue;
        const float *row = logits + rows[i] * table->vocab_size;
        const int64_t width = table->width, own = last[i] * width, of_pair = claim(table, before[i], last[i]) * width;
        int32_t *tokens = table->tokens + own;
        float *chances = table->chances + own;
        find_largest(row, table->vocab_size, width, tokens, chances);
        to_chances(row, table->vocab_size, width, chances);
        memcpy(table->tokens + of_pair, tokens, (size_t)width * sizeof *tokens);
        memcpy(table->chances + of_pair, chances, (size_t)width * sizeof *chances);
    }
}

typedef struct {
    double score;
    int64_t token, bucket;
} Child;

static int comes_first(const Child *one, const Child *other) {
    if (one->score != other->score) return one->score > other->score;
    return one->token != other->token ? one->token > other->token : one->bucket > other->bucket;
}

static void offer(Child *children, int64_t *count, Child child, double min_score) {
    if (!(child.score >= min_score)) return;
    int64_t place = (*count)++;
    for (; place > 0 && comes_first(&child, &children[place - 1]); place--) children[place] = children[place - 1];
    children[place] = child;
}

static int64_t bin_of(const Recycled *table, double chance) {
    int64_t bin = 0;
    while (bin < NUM_BOUNDS && table->bounds[bin] <= chance) bin++;
    return bin;
}

/* What may follow two tokens with at least `min_score`, the best first; how many they are. */
static int64_t children_of(const Recycled *table, int64_t before, int64_t last, double min_score, Child *children) {
    const int64_t pair = before * table->vocab_size + last, slot = table->vocab_size + pair % table->num_slots;
    const int is_known = table->pairs[slot] == pair;
    const int is_thought = is_known && table->chances[slot * table->width] > 0.0f;
    int64_t followed = is_known ? table->followed[slot] : -1, count = 0;
    const int of_pair = followed >= 0;
    if (!of_pair) followed = table->followed[last];
    const int64_t row = (is_thought ? slot : last) * table->width;
    double belief = 0.0;
    for (int64_t k = 0; k < table->width; k++) {
        const double chance = table->chances[row + k];
        const int64_t token = table->tokens[row + k];
        const Child child = {table->thought[is_thought] * chance, token,
                             is_thought * (NUM_BOUNDS + 1) + bin_of(table, chance)};
        if (token == followed) belief = chance;
        else offer(children, &count, child, min_score);
    }
    const Child child = {table->followed_worth[of_pair] + table->thought[is_thought] * belief, followed,
                         (2 + of_pair) * (NUM_BOUNDS + 1) + bin_of(table, belief)};
    if (followed >= 0) offer(children, &count, child, min_score);
    return count;
}

/* A node whose children are being taken up: the next of them, and the chance of coming to it. */
typedef struct {
    int64_t node, before, last, depth, place;
    double reached, chance;
    Child next;
} Open;

/* Turns to the next child; 0 if there is none. */
static int turn(const Recycled *table, Open *open, double min_chance) {
    Child children[MAX_WIDTH + 1];
    const int64_t count = children_of(table, open->before, open->last, min_chance / open->reached, children);
    if (open->place >= count) return 0;
    open->next = children[open->place++];
    open->chance = open->reached * open->next.score;
    return 1;
}

/* Grows the tree of the likeliest continuations of two tokens, none believed reached less often than `min_chance`. */
EXPORT void paceline_recycle_grow(const Recycled *table, int64_t before, int64_t last, double min_chance,
                                  int64_t max_nodes, int64_t max_depth, Grown *grown) {
    Open open[PAGE + 1] = {{-1, before, last, 0, 0, 1.0, 0.0, {0.0, 0, 0}}};
    grown->num_nodes = 0;
    if (!is_token(table, before) || !is_token(table, last)) return;
    int64_t count = turn(table, &open[0], min_chance);
    while (count > 0 && grown->num_nodes < max_nodes && grown->num_nodes < PAGE) {
        Open *best = open;
        for (Open *one = open + 1; one < open + count; one++)
            if (one->chance > best->chance || (one->chance == best->chance && one->node < best->node)) best = one;
        if (best->chance < min_chance) return;
        const int64_t node = grown->num_nodes++;
        grown->tokens[node] = best->next.token;
        grown->parents[node] = best->node;
        grown->buckets[node] = best->next.bucket;
        grown->scores[node] = best->next.score;
        const Open child = {node, best->last, best->next.token, best->depth + 1, 0, best->chance, 0.0, {0.0, 0, 0}};
        if (!turn(table, best, min_chance)) *best = open[--count];
        open[count] = child;
        if (child.depth < max_depth) count += turn(table, &open[count], min_chance);
    }
}
