/* The best tokens of rows of logits, with a request's noise: the function of sampling/noise.py, a part at a time.
 *
 * The noise is Philox 4x64 (Salmon et al. 2011) as numpy draws it. Logarithms may differ from numpy's in the last bit,
 * so near ties may fall otherwise: drafts change no output. */
#include <math.h>
#include <string.h>

#include "draft.h"

enum { PART = 2048, BLOCK = 32 }; /* tokens at a time; tokens that one comparison leaves out */

static void philox(const uint64_t key[2], uint64_t block, uint64_t position, uint64_t out[4]) {
    uint64_t c[4] = {block + 1, position, 0, 0}, k0 = key[0], k1 = key[1]; /* numpy counts before it draws */
    for (int round = 0; round < 10; round++) {
        const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * c[0];
        const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157u * c[2];
        const uint64_t next[4] = {(uint64_t)(b >> 64) ^ c[1] ^ k0, (uint64_t)b, (uint64_t)(a >> 64) ^ c[3] ^ k1,
                                  (uint64_t)a};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B97F4A7C15u;
        k1 += 0xBB67AE8584CAA73Bu;
    }
    memcpy(out, c, sizeof c);
}

static double exact_noise(uint64_t bits) { return -log(-log(((double)(bits >> 12) + 0.5) * 0x1p-52)); }

/* Above the noise, without a logarithm: see noise_ceiling in sampling/noise.py. */
static float noise_ceiling(uint64_t bits) {
    const float complement = (float)(uint32_t)~(bits >> 32);
    int32_t read;
    memcpy(&read, &complement, sizeof read);
    return (float)read * -(0.69314718f * 0x1p-23f) + (159.0f * 0.69314718f + 1e-3f);
}

static void load_part(float *to, const char *from, int64_t dtype, int64_t count) {
    if (dtype == F32) {
        memcpy(to, from, (size_t)count * 4);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = (uint32_t)((const uint16_t *)from)[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}

/* The best so far, at most `most` of them. */
typedef struct {
    Candidate *best;
    int64_t count, most;
} Best;

static double bar_of(const Best *found) {
    return found->count < found->most ? -INFINITY : found->best[found->most - 1].value;
}

/* A later token does not displace an equal one. */
static void enter(Best *found, int64_t token, double value) {
    if (!(value > bar_of(found))) return;
    Candidate *best = found->best;
    int64_t place = found->count < found->most ? found->count++ : found->most - 1;
    for (; place > 0 && best[place - 1].value < value; place--) best[place] = best[place - 1];
    best[place].token = token;
    best[place].value = value;
}

static int any_above(const float *values, float bar) {
    int above = 0;
    for (int i = 0; i < BLOCK; i++) above |= values[i] > bar;
    return above;
}

static void scan_greedy(const float *values, int64_t start, int64_t size, Best *found) {
    for (int64_t i = 0; i < size; i += BLOCK) {
        if (!any_above(values + i, (float)bar_of(found))) continue;
        for (int64_t j = i; j < i + BLOCK; j++) enter(found, start + j, values[j]);
    }
}

/* `values` are logits, `bits` and `ceilings` those of the noise; `looks` is scratch. */
static void scan_noisy(const float *values, const uint64_t *bits, const float *ceilings, double temperature,
                       int64_t start, int64_t size, Best *found) {
    /* Above the sum, float32's roundings included: those are within 2**-22 of what is added. */
    float looks[PART];
    const float scale = (float)(1.0 / temperature);
    for (int64_t i = 0; i < size; i++)
        looks[i] = values[i] * scale + fabsf(values[i] * scale) * 0x1p-21f + ceilings[i] + 1e-4f;
    for (int64_t i = 0; i < size; i += BLOCK) {
        if (!any_above(looks + i, (float)bar_of(found))) continue;
        for (int64_t j = i; j < i + BLOCK; j++)
            if (looks[j] > (float)bar_of(found))
                enter(found, start + j, (double)values[j] / temperature + exact_noise(bits[j]));
    }
}

/* The noise of `size` tokens from `start` on; of those that `ids` names, if it names any. */
static void draw(uint64_t *bits, const Draft *draft, const int64_t *ids, int64_t start, int64_t size,
                 int64_t position) {
    if (ids == NULL) {
        for (int64_t i = 0; i < size; i += 4)
            philox(draft->key, (uint64_t)(start + i) / 4, (uint64_t)position, bits + i);
        return;
    }
    uint64_t four[4] = {0};
    int64_t drawn = -1;
    for (int64_t i = 0; i < size; i++) {
        const int64_t id = ids[start + i];
        if (id / 4 != drawn) philox(draft->key, (uint64_t)(drawn = id / 4), (uint64_t)position, four);
        bits[i] = four[id % 4];
    }
}

void best_of(const Draft *draft, const Scored *scored, int64_t row, int64_t num_rows, int64_t position, int64_t most,
             Candidate *found, int64_t *counts) {
    float values[PART], ceilings[PART];
    uint64_t bits[PART];
    const int is_noisy = draft->temperature > 0.0;
    const uint8_t *mask = position == draft->position ? draft->mask : NULL;
    memset(counts, 0, (size_t)num_rows * sizeof *counts);
    for (int64_t start = 0; start < scored->size; start += PART) {
        const int64_t size = scored->size - start < PART ? scored->size - start : PART;
        const int64_t padded = round_up(size, BLOCK);
        if (is_noisy) {
            draw(bits, draft, scored->ids, start, size, position);
            for (int64_t i = 0; i < size; i++) ceilings[i] = noise_ceiling(bits[i]);
        }
        for (int64_t r = 0; r < num_rows; r++) {
            const int64_t width = scored->dtype == F32 ? 4 : 2;
            load_part(values, scored->logits + ((row + r) * scored->stride + start) * width, scored->dtype, size);
            for (int64_t i = 0; mask != NULL && i < size; i++)
                if (!mask[scored->ids == NULL ? start + i : scored->ids[start + i]]) values[i] = -INFINITY;
            for (int64_t i = size; i < padded; i++) values[i] = -INFINITY, ceilings[i] = 0.0f, bits[i] = 0;
            Best best = {found + r * most, counts[r], most};
            if (is_noisy) scan_noisy(values, bits, ceilings, draft->temperature, start, padded, &best);
            else scan_greedy(values, start, padded, &best);
            counts[r] = best.count;
        }
    }
}
