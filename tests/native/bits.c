/* Quantised products of all kinds of blocks, as a digest of their bits: the same on every instruction set (scripts/stress).
 * On the way: bits are the same for any number of workers, and for a row alone. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"

void paceline_run(const Table *, const Op *, int64_t, int, char *, int64_t);

enum { NUM_BLOCKS = 8, ROWS = 11, COLUMNS = 45 };

/* As in csrc/quantized.h: weights and bytes of a file's block, bytes of a packed unit, places of float16 scales. */
static const struct {
    int64_t weights, bytes, unit_bytes, halves[2];
} BLOCKS[NUM_BLOCKS] = {{32, 34, 1088, {0, 0}},    {32, 36, 1152, {-1, -1}},  {32, 18, 576, {0, 0}},
                        {32, 20, 640, {0, 2}},     {32, 20, 640, {0, 0}},     {256, 144, 4736, {0, 2}},
                        {256, 176, 5760, {0, 2}},  {256, 210, 6720, {208, 208}}};

typedef struct {
    int64_t k, row_bytes, input_bytes, units;
    uint8_t *blocks, *inputs, *packed;
    float *x, *y;
    char *scratch;
    Op ops[4];
} Quantized;

static void fill_blocks(Quantized *q, int block, uint32_t *seed) {
    for (int64_t i = 0; i < COLUMNS * q->row_bytes; i++) q->blocks[i] = (uint8_t)draw(seed);
    for (int64_t i = 0; i < COLUMNS * q->units; i++) {
        uint8_t *to = q->blocks + i * BLOCKS[block].bytes;
        for (int h = 0; h < 2; h++) {
            const uint16_t half = (uint16_t)(0x2000 | (draw(seed) & 0x83ff)); /* about 2^-7, of either sign */
            if (BLOCKS[block].halves[h] >= 0) memcpy(to + BLOCKS[block].halves[h], &half, 2);
        }
        const float scale = (float)(draw(seed) % 1000 + 1) / 77777.0f;
        if (BLOCKS[block].halves[0] < 0) memcpy(to, &scale, 4);
    }
}

static View view_of(void *data, int64_t dtype, int64_t row) {
    const View v = {data, dtype, {row, 1}};
    return v;
}

static Quantized make_quantized(int block, int64_t k, uint32_t seed) {
    Quantized q = {.k = k, .units = (k + BLOCKS[block].weights - 1) / BLOCKS[block].weights};
    q.row_bytes = q.units * BLOCKS[block].bytes;
    q.input_bytes = round_up(round_up(k, 256) / 32 * 48, LINE) + LINE;
    q.blocks = malloc((size_t)(COLUMNS * q.row_bytes)), q.inputs = aligned_alloc(LINE, (size_t)(ROWS * q.input_bytes));
    q.packed = aligned_alloc(LINE, (size_t)round_up(2 * q.units * BLOCKS[block].unit_bytes, LINE));
    q.x = malloc((size_t)(ROWS * k) * 4), q.y = malloc((size_t)(ROWS * COLUMNS + COLUMNS * k) * 4);
    q.scratch = aligned_alloc(LINE, 5 * MAX_ROWS * PANEL * 4);
    fill_blocks(&q, block, &seed);
    for (int64_t i = 0; i < ROWS * k; i++) q.x[i] = (float)((int)(draw(&seed) % 20001) - 10000) / 777.0f;
    static int64_t tokens[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) tokens[i] = COLUMNS - 1 - i;
    const int64_t kinds[4] = {PACK_QUANTIZED, QUANTIZE, LINEAR_QUANTIZED, EMBED_QUANTIZED};
    for (int i = 0; i < 4; i++) {
        const int64_t rows = i == 0 ? 1 : i == 3 ? COLUMNS : ROWS;
        const Op op = {.kind = kinds[i], .function = block, .barrier = 1, .ndim = 3, .shape = {rows, COLUMNS, k}};
        q.ops[i] = op;
    }
    q.ops[0].views[0] = q.ops[2].views[2] = q.ops[3].views[2] = view_of(q.packed, BYTES, 1);
    q.ops[0].views[1] = view_of(q.blocks, BYTES, q.row_bytes);
    q.ops[1].views[0] = q.ops[2].views[1] = view_of(q.inputs, BYTES, q.input_bytes);
    q.ops[1].views[1] = view_of(q.x, F32, k);
    q.ops[2].views[0] = view_of(q.y, F32, COLUMNS);
    q.ops[3].views[0] = view_of(q.y + ROWS * COLUMNS, F32, k), q.ops[3].views[1] = view_of(tokens, I64, 1);
    return q;
}

static void run_quantized(const Table *table, const Quantized *q, const Op *ops, int count, int workers) {
    paceline_run(table, ops, count, workers, q->scratch, MAX_ROWS * PANEL * 4);
}

static uint64_t bits_of_one(const Table *table, Quantized *q, uint64_t digest) {
    const size_t bytes = (size_t)(ROWS * COLUMNS + COLUMNS * q->k) * 4;
    float *expected = malloc(bytes);
    run_quantized(table, q, q->ops, 4, 1);
    memcpy(expected, q->y, bytes);
    for (int workers = 2; workers <= 5; workers++) {
        memset(q->y, 0, bytes);
        run_quantized(table, q, q->ops, 4, workers);
        require(memcmp(expected, q->y, bytes) == 0, "bits of quantised products depend on the workers");
    }
    for (int row = 0; row < ROWS; row++) {
        Op op = q->ops[2];
        op.shape[0] = 1, op.views[1].data = (char *)q->inputs + row * q->input_bytes;
        run_quantized(table, q, &op, 1, 1);
        require(memcmp(q->y, expected + row * COLUMNS, COLUMNS * 4) == 0, "a quantised row alone has other bits");
    }
    digest = add_bits(digest, expected, bytes);
    free(expected), free(q->blocks), free(q->inputs), free(q->packed), free(q->x), free(q->y), free(q->scratch);
    return digest;
}

uint64_t quantized_bits(const Table *table) {
    static const int64_t features[] = {1, 33, 256, 700};
    uint64_t digest = FIRST_BITS;
    for (int block = 0; block < NUM_BLOCKS; block++)
        for (int i = 0; i < 4; i++) {
            Quantized q = make_quantized(block, features[i], (uint32_t)(100 * block + i + 1));
            digest = bits_of_one(table, &q, digest);
        }
    return digest;
}
