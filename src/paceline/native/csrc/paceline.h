/* What the kernels share: operations, workers, and the table that each instruction set fills.
 *
 * An operation is a plain struct that Python fills in (ops.py): what to compute, over which strided views. It is a
 * number of items, each of which may be computed by any worker: job.c hands them out, and lets operations wait for
 * each other. Nothing here allocates, and nothing depends on Python or on PyTorch. */
#ifndef PACELINE_H
#define PACELINE_H

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#define MAX_DIMS 6
#define MAX_VIEWS 8
#define PAGE 64   /* positions of a page of the key/value pool */
#define PANEL 32  /* columns of a panel of packed weights */
#define LINE 64   /* bytes of a cache line */
#define MAX_ROWS 64 /* rows that a linear takes at a time */
#define CHUNK 512   /* positions that attention adds up without a break: several pages */
#define QUERIES 64  /* queries (a row's head each) that attention takes through a chunk at a time */

enum dtype { F32, BF16, I64, BYTES };

enum kind { PACK, LINEAR, EMBED, GATHER, MAP, MEAN, LAYER_NORM, WRITE, ATTEND, COMBINE, QUANTIZE,
            PACK_QUANTIZED, LINEAR_QUANTIZED, EMBED_QUANTIZED, ROUND, CONVOLVE, SCAN, NUM_KINDS };

typedef struct {
    char *data; /* the first element */
    int64_t dtype;
    int64_t strides[MAX_DIMS]; /* in elements */
} View;

typedef struct {
    int64_t kind;
    int64_t function;  /* of MAP; the kind of blocks of quantised weights */
    int64_t is_serial; /* one worker does all of it, and those that follow at once: too small to share */
    int64_t barrier;   /* wait until all before it is finished */
    int64_t ndim;
    int64_t shape[MAX_DIMS];
    View views[MAX_VIEWS]; /* the result first */
    int64_t size[4];
    double number[4];
} Op;

/* A forward's rows, as Python's Frame (frame.py) writes them: see frame.h. */

typedef struct {
    int64_t num_rows, num_sequences;
    int64_t table;             /* address of int64: sequences, rows, slots, then what they point to */
    int64_t rows, slots;       /* offsets in it */
    int64_t partials, chunks;  /* address of the partial results' buffer; chunks per row in it */
} Header;

typedef struct {
    int64_t first_row, end_row;
    int64_t committed;          /* positions whose keys are in pages */
    int64_t pages;              /* offset of its page table */
    int64_t drafts, num_drafts; /* offset of the slots of keys that are not committed; at most PAGE of them */
} Sequence;

typedef struct {
    int64_t position; /* the last that it sees */
    int64_t path;     /* offset of the drafts from position `committed` up to that one */
    int64_t own;      /* what windows are counted from: where it stands itself */
} Row;

/* From `first` up to `end`: items, steps of a sum, places of a tile. */
typedef struct {
    int64_t first, end;
} Range;

typedef struct {
    char *scratch;      /* its own, as many bytes as scratch_bytes() asks */
    const Op *prepared; /* whose input lies in scratch, from row `prepared_row` on; NULL: nobody's */
    int64_t prepared_row;
} Worker;

/* What an operation is made of. No item's bits depend on who computes it, when, or with which others. */
typedef struct {
    void (*run)(const Op *, Worker *, Range items);
    int64_t (*items)(const Op *);
    int64_t at_once; /* fewer items are not worth a ticket */
} Kernel;

typedef struct {
    const char *name;
    int (*is_supported)(void); /* by this processor */
    Kernel kernels[NUM_KINDS];
} Table;

/* Floats between two rows of a linear's input in scratch: not a multiple of a page, where rows would share sets. */
static inline int64_t input_floats(int64_t k) { return (k + 15) / 16 * 16 + 16; }

static inline int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

/* The widest vector: what is sized by it fits every instruction set. Sums over many values go by as many lanes in all of
 * them (WideSum in common.h), so that they have the same bits. */
#define MAX_LANES 16

/* Queries of one item of attention: whole rows, at least one. `group` query heads share a key head. */
static inline int64_t item_queries(int64_t group) { return group > QUERIES ? group : QUERIES / group * group; }

/* A partial result of attention: weighted values, then the maximum and the sum of the weights. */
static inline int64_t partial_floats(int64_t value_dim) { return round_up(value_dim, MAX_LANES) + 2; }

/* Floats of a worker's scratch for attention, in the order of attention.h's Scratch. */
static inline int64_t attention_floats(int64_t group, int64_t dim, int64_t value_dim) {
    const int64_t tiles = PAGE * (round_up(dim, 2 * MAX_LANES) + 2 * round_up(value_dim, MAX_LANES) + MAX_LANES);
    return tiles + item_queries(group) * (round_up(dim, MAX_LANES) + PAGE + 4);
}

/* Floats of a worker's scratch for a linear recurrence, in the order of scan.h's ScanScratch. */
#define SCAN_SPAN 8    /* blocks of 16 columns of an item */
#define SCAN_CHAINS 4  /* independent sums down a column, added up at the end */
static inline int64_t scan_row_floats(int64_t keys) { return 3 * round_up(keys, MAX_LANES) + 2 * SCAN_SPAN * MAX_LANES; }
static inline int64_t scan_floats(int64_t keys) {
    return 2 * PAGE * scan_row_floats(keys) + (PAGE + 2) * round_up(keys, SCAN_CHAINS) * MAX_LANES;
}

extern const Table paceline_portable;
#if defined(__x86_64__)
extern const Table paceline_avx2, paceline_avx2_vnni, paceline_avx512, paceline_avx512_vnni, paceline_avx512_bf16;
#elif defined(__aarch64__) && defined(__ARM_NEON)
extern const Table paceline_neon;
#if defined(__linux__)
extern const Table paceline_neon_dot;
#endif
#endif

#endif
