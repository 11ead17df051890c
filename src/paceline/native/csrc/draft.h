/* A draft model's proposal: the trees of some requests, which grow together. Python's drafting.py mirrors this. */
#ifndef PACELINE_DRAFT_H
#define PACELINE_DRAFT_H

#include "paceline.h"

enum { CONSIDERED = 8 }; /* tokens among which belief is shared out */

/* The recorded forward of so many rows. */
typedef struct {
    int64_t num_rows;
    const Op *ops;
    int64_t num_ops;
    int64_t *tokens, *positions; /* its inputs */
    const char *logits;          /* (num_rows, vocab_size), rows contiguous */
    int64_t dtype, stride;       /* of the logits; elements between rows */
} Recorded;

/* A request: what is known of it, then its tree. */
typedef struct {
    const int64_t *pages; /* of its sequence in the cache, with room for all rows */
    int64_t length;       /* positions that are committed */
    int64_t position;     /* of the first token to draft */
    const uint8_t *mask;  /* (vocab_size,) 1 where a first token may be drafted; NULL: all */
    int64_t max_nodes, max_depth; /* at most PAGE nodes */
    double min_gain;              /* tokens that a level must bring */
    double temperature;           /* 0: the likeliest tokens, without noise */
    uint64_t key[2];              /* of the noise */
    /* Rows fed behind `length`: given the tokens that the cache lacks, left with the nodes that were fed. */
    int64_t num_fed, fed_tokens[PAGE], fed_parents[PAGE]; /* parents are places among them; -1 is what is committed */
    int64_t num_nodes, tokens[PAGE], parents[PAGE], depths[PAGE];
    double scores[PAGE]; /* the chance of each, once at its parent */
    /* While it grows: */
    int64_t num_rows, rows[PAGE]; /* nodes that the next forward is fed; -1 is the pending token */
    int64_t level_start;          /* the first node of the newest level */
    int64_t places[PAGE];         /* of nodes among those fed */
    double reached[PAGE];         /* the chance of coming to each node */
    double before, gain;          /* tokens expected of the level before the newest, and of the newest */
} Draft;

typedef struct {
    const Recorded *recorded; /* ascending in rows, the last with as many as will be wanted */
    int64_t num_recorded;
    Header *header;       /* of the frame that they share; its tables have room for what is fed here */
    int64_t vocab_size, last_position, max_rows; /* rows of a forward, at most: the largest recorded or more */
    int64_t width, branch; /* nodes extended at each level, children of each */
} Model;

typedef struct {
    int64_t token;
    double value;
} Candidate;

/* Rows of logits. */
typedef struct {
    const char *logits;
    int64_t dtype, stride, size; /* elements between rows; tokens of a row */
    const int64_t *ids;          /* (size,) the target's number of each token; NULL: they are the same */
} Scored;

/* The best of scores and, where a request has a temperature, noise: `most` tokens at most of each of `num_rows` rows,
 * the best first, of equals the lower, from `found + row * most` on. All rows, from `row` on, stand at one position.
 * Nothing is returned beyond `counts` of each row. */
void best_of(const Draft *draft, const Scored *scored, int64_t row, int64_t num_rows, int64_t position, int64_t most,
             Candidate *found, int64_t *counts);

#endif
