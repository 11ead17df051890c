/* The table of one instruction set, made from the vectors that were included before. */
#include "common.h"
#include "functions.h"
#include "linear.h"
#include "quantized.h"
#include "quantize.h"
#include "map.h"
#include "reduce.h"
#include "pack.h"
#include "frame.h"
#include "product.h"
#include "tiles.h"
#include "attention.h"
#include "attend.h"
#include "combine.h"
#include "states.h"
#include "convolve.h"
#include "scan.h"
#include "rounding.h"
#include "rounding_super.h"
#include "rounding_blocks.h"

/* Items of a ticket at least: what takes about as long as taking it does not matter. */
#define TABLE(set, text, supported)                                   \
    static int is_supported(void) { return supported; }               \
    const Table paceline_##set = {text,                               \
                                  is_supported,                       \
                                  {[PACK] = {pack, panels_of, 1},     \
                                   [LINEAR] = {linear, linear_items, 1}, \
                                   [EMBED] = {embed, rows_of, 1},     \
                                   [GATHER] = {gather, rows_of, 1},   \
                                   [MAP] = {map, map_items, 8},       \
                                   [MEAN] = {mean, outer_of, 4},      \
                                   [LAYER_NORM] = {layer_norm, outer_of, 2}, \
                                   [WRITE] = {write_rows, write_items, 8}, \
                                   [ATTEND] = {attend, attend_items, 1}, \
                                   [COMBINE] = {combine, combine_items, 4}, \
                                   [QUANTIZE] = {quantize, rows_of, 1}, \
                                   [PACK_QUANTIZED] = {pack_quantized, panels_of, 1}, \
                                   [LINEAR_QUANTIZED] = {linear_quantized, linear_items, 1}, \
                                   [EMBED_QUANTIZED] = {embed_quantized, rows_of, 1}, \
                                   [CONVOLVE] = {convolve, convolve_items, 2}, \
                                   [SCAN] = {scan, scan_items, 1}, \
                                   [ROUND] = {round_blocks, round_items, 1}}}
