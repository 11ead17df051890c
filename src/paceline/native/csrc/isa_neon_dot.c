#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__linux__)
#include <sys/auxv.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod") /* as arm_neon.h asks of its callers */
#endif
#include "vec_neon.h"

#define HAS_DOT_BYTES
#include "int_neon.h"

#include "kernels.h"

#define HAS_DOT_PRODUCT (1 << 20) /* of the kernel's word of capabilities: asimddp */

TABLE(neon_dot, "neon-dot", (getauxval(AT_HWCAP) & HAS_DOT_PRODUCT) != 0);
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
