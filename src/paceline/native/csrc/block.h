/* A block head's proposals: one forward for some requests, then a tree for each. Python's blocks.py mirrors this. */
#ifndef PACELINE_BLOCK_H
#define PACELINE_BLOCK_H

#include "draft.h"

enum { OFFERED = 16, CHILDREN = 4 }; /* candidates of a slot; of them, those that may become children */

/* How a slot's logits depend on the token before it: heads/transitions.py. */
typedef struct {
    int64_t rank;                 /* 0: they do not */
    int64_t state_size;           /* numbers that go along a path */
    int64_t num_features;         /* of each slot, behind its logits */
    const float *w1, *w2, *joint; /* (V, r), (num_logits, r), (num_features, state + r), all contiguous */
    const float *columns;         /* (r, num_logits): w2 again, by columns */
    float *states;                /* (PAGE + 1, state) scratch, then (num_features + state + 2 r) more */
    float *scored;                /* (num_logits,) scratch */
} Transition;

typedef struct {
    Transition transition;
    const Op *ops; /* the recorded forward */
    int64_t num_ops;
    int64_t *tokens, *positions; /* its inputs: those of masks are there already */
    const float *said;           /* its result (rows, num_logits + num_features) */
    Header *header;              /* of its frame, with room for what stands here */
    int64_t block_size, first_slot, is_causal, num_logits, vocab_size;
    const int64_t *ids; /* (num_logits,) the target's number of each token; NULL: they are the same */
    double least;       /* chance of being reached that a node must have */
} BlockModel;

#endif
