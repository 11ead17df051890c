/* What Python and recycle.c share: see layout.py. */
#ifndef PACELINE_RECYCLE_H
#define PACELINE_RECYCLE_H

#include "paceline.h"

enum { NUM_BOUNDS = 6 };

typedef struct {
    int32_t *tokens;   /* (rows, width): the likeliest after each, the best first */
    float *chances;    /* and their chances; 0 first in a row that was never thought */
    int32_t *followed; /* (rows,) what followed last; -1: nothing */
    int64_t *pairs;    /* (rows,) whose a slot is */
    int64_t vocab_size, width, num_slots;
    double thought[2], followed_worth[2], bounds[NUM_BOUNDS]; /* THOUGHT, FOLLOWED, CHANCES of drafters/recycle.py */
} Recycled;

typedef struct {
    int64_t num_nodes, tokens[PAGE], parents[PAGE], buckets[PAGE];
    double scores[PAGE];
} Grown;

#endif
