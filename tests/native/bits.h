/* What the files of scripts/stress share. */
#include "paceline.h"

void require(int condition, const char *message);
uint32_t draw(uint32_t *state);

/* A digest of bytes: FNV-1a. */
#define FIRST_BITS 0xcbf29ce484222325u
static inline uint64_t add_bits(uint64_t digest, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) digest = (digest ^ ((const uint8_t *)from)[i]) * 0x100000001b3u;
    return digest;
}

uint64_t quantized_bits(const Table *table);
