/* The AVX2 kernels of quantised weights by themselves, so that one with a fault compiles in a second. */
#include "vec_avx2.h"

#ifdef WITH_DOT_BYTES /* AVX-VNNI's instruction, in the encoding of AVX-512, which has the same one */
#define HAS_DOT_BYTES
#define _mm256_dpbusd_avx_epi32 _mm256_dpbusd_epi32
#endif
#include "int_avx2.h"

#include "common.h"
#include "functions.h"
#include "linear.h"
#include "quantized.h"
#include "quantize.h"

EXPORT void planted_run(const Op *op, char *scratch) {
    Worker worker = {scratch, NULL, 0};
    const Range rows = {0, rows_of(op)}, panels = {0, panels_of(op)}, items = {0, linear_items(op)};
    if (op->kind == QUANTIZE) quantize(op, &worker, rows);
    if (op->kind == PACK_QUANTIZED) pack_quantized(op, &worker, panels);
    if (op->kind == LINEAR_QUANTIZED) linear_quantized(op, &worker, items);
}
