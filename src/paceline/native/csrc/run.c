/* What Python calls: running operations, choosing a table, asking for pages. */
#define _GNU_SOURCE
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "block.h"
#include "draft.h"
#include "job.h"
#include "pool.h"
#include "recycle.h"

/* Runs `ops` in order on up to `num_workers` workers; results do not depend on how many there are. */
EXPORT void paceline_run(const Table *table, const Op *ops, int64_t num_ops, int num_workers, char *scratch,
                         int64_t scratch_bytes) {
    const Call call = {table, ops, num_ops, scratch, scratch_bytes};
    run_call(&call, num_workers);
}

/* Wakes the helpers of a run that is about to come: waking takes longer than many an operation. */
EXPORT void paceline_expect(int num_workers) {
    if (num_workers > 1) pool_expect(num_workers - 1);
}

/* What Python mirrors (layout.py): sizes of structs in bytes, then constants. Compared when it loads this library. */
EXPORT const int64_t paceline_layout[] = {sizeof(View), sizeof(Op), sizeof(Header), sizeof(Sequence), sizeof(Row),
                                          sizeof(Recorded), sizeof(Draft), sizeof(Model), sizeof(Recycled), sizeof(Grown),
                                          sizeof(BlockModel),
                                          NUM_KINDS, PAGE, PANEL, CHUNK, MAX_LANES};

/* The table of an instruction set by name, or NULL if it is unknown or this processor lacks it. */
EXPORT const Table *paceline_table(const char *name) {
    static const Table *const tables[] = {
#if defined(__x86_64__)
        &paceline_avx512_bf16, &paceline_avx512_vnni, &paceline_avx512, &paceline_avx2_vnni, &paceline_avx2,
#elif defined(__aarch64__) && defined(__ARM_NEON)
#if defined(__linux__)
        &paceline_neon_dot,
#endif
        &paceline_neon,
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
        case LINEAR_QUANTIZED: return MAX_ROWS * PANEL * 4;
        case ATTEND: return attention_floats(op->shape[1] / op->shape[3], op->shape[2], op->shape[4]) * 4;
        case COMBINE: return round_up(op->shape[4], MAX_LANES) * 4;
        case SCAN: return scan_floats(op->shape[2]) * 4;
        case ROUND: return 4 * 256 * MAX_LANES * 4;
        default: return 0;
    }
}

/* Lets go of the pages of a mapped file, which are read again if need be. Never for memory that was written. */
EXPORT void paceline_forget(char *data, int64_t bytes) {
#ifdef MADV_DONTNEED
    const uintptr_t unit = 4096, first = ((uintptr_t)data + unit - 1) / unit * unit, end = (uintptr_t)data + bytes;
    if (first < end) madvise((void *)first, (end - first) / unit * unit, MADV_DONTNEED);
#else
    (void)data, (void)bytes;
#endif
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
