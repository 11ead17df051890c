#include "vec_portable.h"

#include "int_portable.h"

#include "kernels.h"

TABLE(portable, "portable", 1);
