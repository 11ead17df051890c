/* Runs a list of operations on some workers, and what is done once: choosing a table, asking for pages. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "paceline.h"

#define EXPORT __attribute__((visibility("default")))

/* The OpenMP runtime that PyTorch brought: a second one would fight it for the cores. */
typedef struct {
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned); /* GOMP_parallel */
    int (*index)(void);                                            /* omp_get_thread_num */
    int (*count)(void);                                            /* omp_get_num_threads */
} Runtime;

typedef struct {
    const Table *table;
    const Op *ops;
    int64_t num_ops;
    char *scratch;
    int64_t scratch_bytes; /* of each worker */
    Runtime runtime;
    /* Written at every barrier: on lines of their own, away from each other and from what all read. */
    _Alignas(LINE) atomic_int waiting;
    _Alignas(LINE) atomic_int round;
} Job;

enum { SPINS = 2000 };

/* All workers meet. Who waits long gives its core away: another process may need it for the one that is late. */
static void meet(Job *job, int count) {
    const int round = atomic_load_explicit(&job->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&job->waiting, 1, memory_order_acq_rel) == count - 1) {
        atomic_store_explicit(&job->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&job->round, round + 1, memory_order_release);
        return;
    }
    int spins = 0;
    while (atomic_load_explicit(&job->round, memory_order_acquire) == round) {
        if (spins < SPINS) spins++;
        else sched_yield();
    }
}

static void work(Job *job, int index, int count) {
    const Worker worker = {index, count, job->scratch + index * job->scratch_bytes};
    const Worker alone = {0, 1, job->scratch};
    for (int64_t i = 0; i < job->num_ops; i++) {
        const Op *op = &job->ops[i];
        if (op->barrier && count > 1) meet(job, count);
        if (!op->is_serial) job->table->kernels[op->kind](op, &worker);
        else if (index == 0) job->table->kernels[op->kind](op, &alone);
    }
}

static void enter(void *data) {
    Job *job = data;
    work(job, job->runtime.index(), job->runtime.count());
}

/* Runs `ops` in order on up to `num_workers` workers; results do not depend on how many there are. */
EXPORT void paceline_run(const Table *table, const Op *ops, int64_t num_ops, int num_workers, char *scratch,
                  int64_t scratch_bytes, const Runtime *runtime) {
    Job job = {table, ops, num_ops, scratch, scratch_bytes, *runtime, 0, 0};
    if (num_workers > 1 && runtime->parallel != NULL) runtime->parallel(enter, &job, (unsigned)num_workers, 0);
    else work(&job, 0, 1);
}

/* What Python mirrors (layout.py): sizes of structs in bytes, then constants. Compared when it loads this library. */
EXPORT const int64_t paceline_layout[] = {sizeof(View), sizeof(Op), sizeof(Header), sizeof(Sequence), sizeof(Row),
                                          NUM_KINDS, PAGE, PANEL, CHUNK, MAX_LANES};

/* The table of an instruction set by name, or NULL if it is unknown or this processor lacks it. */
EXPORT const Table *paceline_table(const char *name) {
    static const Table *const tables[] = {
#if defined(__x86_64__)
        &paceline_avx512_bf16, &paceline_avx512, &paceline_avx2,
#endif
        &paceline_portable,
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (strcmp(tables[i]->name, name) == 0 && tables[i]->is_supported()) return tables[i];
    return NULL;
}

/* Bytes of scratch that each worker needs for an operation. */
EXPORT int64_t paceline_scratch_bytes(const Op *op) {
    switch (op->kind) {
        case LINEAR: return MAX_ROWS * (input_floats(op->shape[2]) + PANEL) * 4;
        case ATTEND: return attention_floats(op->shape[1] / op->shape[3], op->shape[2], op->shape[4]) * 4;
        case COMBINE: return round_up(op->shape[4], MAX_LANES) * 4;
        default: return 0;
    }
}

/* Asks for large pages, which spare a stream over weights its page walks. Whether it is granted changes nothing else. */
EXPORT void paceline_advise(char *data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t unit = 4096, first = ((uintptr_t)data + unit - 1) / unit * unit, end = (uintptr_t)data + bytes;
    if (first < end) madvise((void *)first, (end - first) / unit * unit, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
}
