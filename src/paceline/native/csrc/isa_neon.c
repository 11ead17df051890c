#if defined(__aarch64__) && defined(__ARM_NEON)
#include "vec_neon.h"

#include "int_neon.h"

#include "kernels.h"

TABLE(neon, "neon", 1);
#endif
