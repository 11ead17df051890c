/* A call: operations in order, whose items any number of workers take by ticket (job.c). */
#ifndef PACELINE_JOB_H
#define PACELINE_JOB_H

#include "paceline.h"

typedef struct {
    const Table *table;
    const Op *ops;
    int64_t num_ops;
    char *scratch;
    int64_t scratch_bytes; /* of each worker */
} Call;

/* Runs the operations on the caller's thread and up to `num_workers - 1` helpers. No bit depends on how many come. */
void run_call(const Call *call, int num_workers);

#endif
