/* The table of one instruction set, made from the vectors that were included before. */
#include "common.h"
#include "functions.h"
#include "linear.h"
#include "map.h"
#include "pack.h"
#include "frame.h"
#include "product.h"
#include "tiles.h"
#include "attention.h"
#include "combine.h"

#define TABLE(set, text, supported)                                                                    \
    static int is_supported(void) { return supported; }                                               \
    const Table paceline_##set = {text,                                                               \
                                  is_supported,                                                       \
                                  {[PACK] = pack,                                                     \
                                   [LINEAR] = linear,                                                 \
                                   [EMBED] = embed,                                                   \
                                   [GATHER] = gather,                                                 \
                                   [MAP] = map,                                                       \
                                   [MEAN] = mean,                                                     \
                                   [LAYER_NORM] = layer_norm,                                         \
                                   [WRITE] = write_rows,                                               \
                                   [ATTEND] = attend,                                                  \
                                   [COMBINE] = combine}}
