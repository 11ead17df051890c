/* The kernels without Python: for ThreadSanitizer, and for processors that are emulated (scripts/stress).
 *
 * Random linears, elementwise work, means and attention, one after the other, on 1 to 5 workers that dawdle, from
 * two threads at once: bits must be those of one worker, and a row's those of the row alone. Products are compared
 * with sums in double. Ends with "ok" or at the first difference, and says digests of bits: of quantised products, which
 * are the same on every instruction set, and of float32 work, the same on every one that fuses. With a second argument
 * it says these alone. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"

void paceline_run(const Table *, const Op *, int64_t, int, char *, int64_t);
void paceline_expect(int);
const Table *paceline_table(const char *);
int64_t paceline_scratch_bytes(const Op *);
extern _Atomic uint32_t paceline_dawdle;

enum { SILU = 4, MULTIPLY = 18, NUM_OPS = 5, MAX_WORKERS = 5 };

static const Table *table;

void require(int condition, const char *message) {
    if (condition) return;
    printf("%s\n", message);
    exit(1);
}

uint32_t draw(uint32_t *state) { return *state = *state * 1664525u + 1013904223u, *state >> 8; }

/* Floats that bfloat16 holds too, so that a product in double is what either dtype is near. */
static float value(uint32_t *state) { return (float)((int)(draw(state) % 255) - 127) / 128.0f; }

static void put(char *to, int64_t dtype, int64_t i, float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint16_t high = (uint16_t)(bits >> 16);
    if (dtype == F32) memcpy(to + i * 4, &x, 4);
    else memcpy(to + i * 2, &high, 2);
}

static View view(void *data, int64_t dtype, int64_t row) {
    View v = {data, dtype, {row, 1}};
    return v;
}

static Op op_of(int64_t kind, int64_t a, int64_t b, int64_t c) {
    Op op = {.kind = kind, .barrier = 1, .ndim = c ? 3 : 2, .shape = {a, b, c}};
    return op;
}

typedef struct {
    int64_t rows, n, k, dtype, width;
    char *weight, *x, *packed, *y, *z, *means, *scratch;
    int64_t scratch_bytes, out_bytes;
    Op ops[NUM_OPS];
} Case;

static void run_case(Case *c, const Op *ops, int64_t count, int workers) {
    paceline_run(table, ops, count, workers, c->scratch, c->scratch_bytes);
}

/* y = x W^T; z = silu(y); z = z * y in place; the means of z's rows. */
static Case make_case(uint32_t seed) {
    Case c = {.rows = 1 + draw(&seed) % 70, .n = 1 + draw(&seed) % 300, .k = 1 + draw(&seed) % 300};
    c.dtype = draw(&seed) % 2 ? BF16 : F32, c.width = c.dtype == BF16 ? 2 : 4;
    const int64_t steps = (c.k * c.width + 3) / 4, panels = (c.n + PANEL - 1) / PANEL;
    c.weight = malloc((size_t)(c.n * c.k * c.width)), c.x = malloc((size_t)(c.rows * c.k * c.width));
    c.packed = malloc((size_t)(panels * steps * PANEL * 4 + 65536)); /* what is fetched ahead is never read */
    c.out_bytes = c.rows * (2 * c.n + 1) * 4;
    c.y = calloc(1, (size_t)c.out_bytes), c.z = c.y + c.rows * c.n * 4, c.means = c.z + c.rows * c.n * 4;
    for (int64_t i = 0; i < c.n * c.k; i++) put(c.weight, c.dtype, i, value(&seed));
    for (int64_t i = 0; i < c.rows * c.k; i++) put(c.x, c.dtype, i, value(&seed));
    Op *ops = c.ops;
    ops[0] = op_of(PACK, 1, c.n, c.k), ops[0].views[0] = view(c.packed, c.dtype, 0);
    ops[0].views[1] = view(c.weight, c.dtype, c.k);
    ops[1] = op_of(LINEAR, c.rows, c.n, c.k), ops[1].views[0] = view(c.y, F32, c.n);
    ops[1].views[1] = view(c.x, c.dtype, c.k), ops[1].views[2] = view(c.packed, c.dtype, 0);
    ops[2] = op_of(MAP, c.rows, c.n, 0), ops[2].function = SILU, ops[2].number[1] = 1;
    ops[2].views[0] = view(c.z, F32, c.n), ops[2].views[1] = view(c.y, F32, c.n);
    ops[3] = ops[2], ops[3].function = MULTIPLY;
    ops[3].views[1] = view(c.z, F32, c.n), ops[3].views[2] = view(c.y, F32, c.n);
    ops[4] = op_of(MEAN, c.rows, c.n, 0), ops[4].views[0] = view(c.means, F32, 1);
    ops[4].views[1] = view(c.z, F32, c.n), ops[4].is_serial = c.rows % 2;
    c.scratch_bytes = (paceline_scratch_bytes(&ops[1]) + LINE - 1) / LINE * LINE;
    c.scratch = aligned_alloc(LINE, (size_t)(MAX_WORKERS * c.scratch_bytes));
    return c;
}

static float get(const char *from, int64_t dtype, int64_t i) {
    uint32_t bits = 0;
    uint16_t high;
    float x;
    memcpy(&high, from + i * (dtype == BF16 ? 2 : 4), 2);
    bits = (uint32_t)high << 16;
    if (dtype == F32) memcpy(&bits, from + i * 4, 4);
    memcpy(&x, &bits, 4);
    return x;
}

static void check_products(const Case *c) {
    for (int64_t i = 0; i < c->rows * c->n; i++) {
        double sum = 0, scale = 1;
        for (int64_t j = 0; j < c->k; j++) {
            const double term = (double)get(c->x, c->dtype, i / c->n * c->k + j) *
                                (double)get(c->weight, c->dtype, i % c->n * c->k + j);
            sum += term, scale += fabs(term);
        }
        require(fabs(((const float *)c->y)[i] - sum) <= 2e-6 * scale, "a product is wrong");
    }
}

static void check_rows_alone(Case *c, const char *expected) {
    Op op = c->ops[1];
    op.shape[0] = 1;
    for (int64_t r = 0; r < c->rows; r++) {
        op.views[0].data = c->z, op.views[1].data = c->x + r * c->k * c->width;
        run_case(c, &op, 1, 1);
        require(memcmp(c->z, expected + r * c->n * 4, (size_t)c->n * 4) == 0, "a row alone has other bits");
    }
}

/* A chain of drafts behind committed positions: heads share key heads in pairs. */
enum { HEADS = 4, KV_HEADS = 2, MAX_DRAFTS = 20, MAX_PAGES = 24 };
enum { ROWS_AT = sizeof(Sequence) / sizeof(int64_t), ROW = sizeof(Row) / sizeof(int64_t) };

typedef struct {
    int64_t rows, committed, dim, dtype, chunks;
    char *query, *keys, *values, *out;
    float *partials;
    char *scratch;
    int64_t scratch_bytes;
    Header header;
    int64_t table[ROWS_AT + (ROW + 1) * MAX_DRAFTS + MAX_PAGES + 2 * MAX_DRAFTS];
    Op ops[2];
} Scene;

/* One sequence; a row's own key is the draft of its number, in the page after the committed ones. */
static void fill_table(Scene *s) {
    const int64_t pages = (s->committed + PAGE - 1) / PAGE, slots = ROWS_AT + ROW * s->rows, rest = slots + s->rows;
    const Sequence sequence = {0, s->rows, s->committed, rest, rest + pages, s->rows};
    memcpy(s->table, &sequence, sizeof sequence);
    for (int64_t i = 0; i < pages; i++) s->table[rest + i] = pages - 1 - i;
    for (int64_t i = 0; i < s->rows; i++) {
        const int64_t slot = pages * PAGE + (i * 7 + 3) % PAGE, path = rest + pages + s->rows;
        const Row row = {s->committed + i, path, s->committed + i};
        memcpy(s->table + ROWS_AT + ROW * i, &row, sizeof row);
        s->table[slots + i] = slot, s->table[rest + pages + i] = slot, s->table[path + i] = i;
    }
    s->chunks = (s->committed + s->rows - 1) / CHUNK + 1;
    const Header header = {s->rows, 1, (int64_t)(intptr_t)s->table, ROWS_AT, slots,
                           (int64_t)(intptr_t)s->partials, s->chunks};
    s->header = header;
}

static char *random_floats(int64_t count, int64_t dtype, uint32_t *seed) {
    char *to = malloc((size_t)(count * 4 + 4096));
    for (int64_t i = 0; i < count; i++) put(to, dtype, i, value(seed));
    return to;
}

static Scene *make_scene(uint32_t seed) {
    Scene *s = calloc(1, sizeof *s);
    s->rows = 1 + draw(&seed) % MAX_DRAFTS, s->committed = draw(&seed) % 1200, s->dim = 1 + draw(&seed) % 70;
    s->dtype = draw(&seed) % 2 ? BF16 : F32;
    const int64_t pool = (MAX_PAGES + 1) * KV_HEADS * PAGE * s->dim;
    s->query = random_floats(s->rows * HEADS * s->dim, F32, &seed);
    s->keys = random_floats(pool, s->dtype, &seed), s->values = random_floats(pool, s->dtype, &seed);
    s->partials = calloc((size_t)(4 * s->rows * HEADS * partial_floats(s->dim)), 4);
    s->out = calloc((size_t)(s->rows * HEADS * s->dim), 4);
    fill_table(s);
    for (int i = 0; i < 2; i++) {
        Op op = {.kind = i ? COMBINE : ATTEND, .barrier = 1, .ndim = 5,
                 .shape = {s->rows, HEADS, s->dim, KV_HEADS, s->dim}, .number = {0.3, 0}};
        const View rows = {s->out, F32, {HEADS * s->dim, s->dim, 1}};
        const View cache = {s->keys, s->dtype, {KV_HEADS * PAGE * s->dim, PAGE * s->dim, s->dim, 1}};
        op.views[0] = op.views[1] = rows, op.views[2] = op.views[3] = cache;
        op.views[1].data = s->query, op.views[3].data = s->values, op.views[4].data = (char *)&s->header;
        s->ops[i] = op;
    }
    s->scratch_bytes = (paceline_scratch_bytes(&s->ops[0]) + LINE - 1) / LINE * LINE;
    s->scratch = aligned_alloc(LINE, (size_t)(MAX_WORKERS * s->scratch_bytes));
    return s;
}

static void run_scene(Scene *s, int workers) {
    paceline_run(table, s->ops, 2, workers, s->scratch, s->scratch_bytes);
}

/* Softmax in double for one row and head. */
static void check_attention(const Scene *s, int64_t row, int64_t head) {
    double sums[71] = {0}, total = 0;
    for (int64_t i = 0; i <= s->committed + row; i++) {
        const int64_t *pages = s->table + ((const Sequence *)s->table)->pages;
        const int64_t *drafts = s->table + ((const Sequence *)s->table)->drafts;
        const int64_t slot = i < s->committed ? pages[i / PAGE] * PAGE + i % PAGE : drafts[i - s->committed];
        const int64_t at = ((slot / PAGE * KV_HEADS + head * KV_HEADS / HEADS) * PAGE + slot % PAGE) * s->dim;
        double score = 0;
        for (int64_t d = 0; d < s->dim; d++)
            score += (double)get(s->query, F32, (row * HEADS + head) * s->dim + d) * get(s->keys, s->dtype, at + d);
        total += score = exp(0.3 * score);
        for (int64_t d = 0; d < s->dim; d++) sums[d] += score * get(s->values, s->dtype, at + d);
    }
    for (int64_t d = 0; d < s->dim; d++)
        require(fabs(get(s->out, F32, (row * HEADS + head) * s->dim + d) - sums[d] / total) < 1e-5,
                "attention is wrong");
}

static void stress_attention(uint32_t seed) {
    Scene *s = make_scene(seed);
    const size_t bytes = (size_t)(s->rows * HEADS * s->dim * 4);
    char *expected = malloc(bytes);
    run_scene(s, 1);
    memcpy(expected, s->out, bytes);
    for (int64_t head = 0; head < HEADS; head++) check_attention(s, s->rows - 1, head);
    for (int workers = 2; workers <= MAX_WORKERS; workers++) {
        memset(s->out, 0, bytes);
        run_scene(s, workers);
        require(memcmp(expected, s->out, bytes) == 0, "bits of attention depend on the workers");
    }
    for (int64_t rows = 1; rows < s->rows; rows += 6) { /* fewer rows: the same bits */
        Scene fewer = *s;
        fewer.rows = rows;
        fill_table(&fewer);
        for (int i = 0; i < 2; i++) fewer.ops[i].shape[0] = rows, fewer.ops[i].views[4].data = (char *)&fewer.header;
        run_scene(&fewer, 1);
        require(memcmp(expected, s->out, (size_t)(rows * HEADS * s->dim * 4)) == 0, "rows change each other's bits");
    }
    free(s->query), free(s->keys), free(s->values), free(s->partials), free(s->out), free(s->scratch), free(s);
    free(expected);
}

static void *stress(void *first) {
    const uint32_t start = (uint32_t)(uintptr_t)first;
    for (uint32_t seed = start; seed < start + 12; seed++) {
        if (seed % 3 == 0) stress_attention(seed * 31u);
        Case c = make_case(seed * 77u);
        char *expected = malloc((size_t)c.out_bytes);
        run_case(&c, c.ops, NUM_OPS, 1);
        memcpy(expected, c.y, (size_t)c.out_bytes);
        check_products(&c);
        for (int workers = 2; workers <= MAX_WORKERS; workers++) {
            memset(c.y, 0, (size_t)c.out_bytes);
            paceline_expect(workers);
            run_case(&c, c.ops, NUM_OPS, workers);
            require(memcmp(expected, c.y, (size_t)c.out_bytes) == 0, "bits depend on the workers");
        }
        check_rows_alone(&c, expected);
        free(c.weight), free(c.x), free(c.packed), free(c.y), free(c.scratch), free(expected);
    }
    return NULL;
}

/* Products, functions, means and attention in float32. */
static uint64_t float_bits(void) {
    uint64_t digest = FIRST_BITS;
    for (uint32_t seed = 1; seed < 16; seed++) {
        Case c = make_case(seed * 77u);
        run_case(&c, c.ops, NUM_OPS, 1);
        if (c.dtype == F32) digest = add_bits(digest, c.y, (size_t)c.out_bytes); /* pairs of bfloat16 are one product */
        free(c.weight), free(c.x), free(c.packed), free(c.y), free(c.scratch);
        Scene *s = make_scene(seed * 31u);
        run_scene(s, 1);
        digest = add_bits(digest, s->out, (size_t)(s->rows * HEADS * s->dim * 4));
        free(s->query), free(s->keys), free(s->values), free(s->partials), free(s->out), free(s->scratch), free(s);
    }
    return digest;
}

int main(int argc, char **argv) {
    table = paceline_table(argc > 1 ? argv[1] : "portable");
    require(table != NULL, "this processor has no such instruction set");
    const uint64_t quantized = quantized_bits(table), floats = float_bits();
    printf("%s: bits %016llx %016llx\n", table->name, (unsigned long long)quantized, (unsigned long long)floats);
    if (argc > 2) return 0;
    for (uint32_t seed = 0; seed < 3; seed++) {
        pthread_t other;
        atomic_store(&paceline_dawdle, seed);
        pthread_create(&other, NULL, stress, (void *)(uintptr_t)(1000 + 100 * seed));
        stress((void *)(uintptr_t)(100 * seed + 1));
        pthread_join(other, NULL);
    }
    printf("%s: ok\n", table->name);
    return 0;
}
