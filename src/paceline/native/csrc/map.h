/* Elementwise functions over strided views: what a model does between its products.
 *
 * Values are computed in float32 and rounded once to the result's dtype, in blocks that are filled up to whole
 * vectors: a value's bits do not depend on where it stands. */
#include <math.h>

enum function {
    COPY, NEGATE, EXP, SIGMOID, SILU, TANH, GELU, GELU_TANH, RELU, RSQRT, SQRT, COS, SIN, SQUARE, CUBE, RECIPROCAL,
    LOG, LOG1P, EXPM1, SOFTPLUS, FLOOR, ABSOLUTE, ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, LESS, LESS_EQUAL,
    GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, WHERE
};

#define BLOCK 256

/* Items of what works on rows of the last dimension: how many there are. */
static int64_t outer_of(const Op *op) {
    int64_t outer = 1;
    for (int64_t d = 0; d + 1 < op->ndim; d++) outer *= op->shape[d];
    return outer;
}

static const char *row_of(const View *view, const Op *op, int64_t outer) {
    int64_t offset = 0;
    for (int64_t d = op->ndim - 2; d >= 0; d--) {
        offset += outer % op->shape[d] * view->strides[d];
        outer /= op->shape[d];
    }
    return view->data + offset * width_of(view->dtype);
}

/* `count` values from place `first` of the last dimension on. */
static void load_block(float *to, const View *view, const char *row, int64_t stride, int64_t first, int64_t count) {
    const int64_t width = width_of(view->dtype);
    if (stride == 1) {
        load_floats(to, row + first * width, view->dtype, count);
    } else if (stride == 0) {
        load_floats(to, row, view->dtype, 1);
        for (int64_t i = 1; i < count; i++) to[i] = to[0];
    } else {
        for (int64_t i = 0; i < count; i++) load_floats(to + i, row + (first + i) * stride * width, view->dtype, 1);
    }
}

static void store_block(const float *from, const View *view, char *row, int64_t stride, int64_t first, int64_t count) {
    const int64_t width = width_of(view->dtype);
    if (stride == 1) store_floats(row + first * width, view->dtype, from, count);
    else
        for (int64_t i = 0; i < count; i++) store_floats(row + (first + i) * stride * width, view->dtype, from + i, 1);
}

static inline vf vf_gelu(vf x) {
    const vf half = vf_mul(x, vf_set1(0.5f));
    return vf_fma(half, vf_erf(vf_mul(x, vf_set1(0.707106781f))), half);
}

static inline vf vf_gelu_tanh(vf x) {
    const vf inner = vf_fma(vf_mul(vf_mul(x, x), x), vf_set1(0.044715f), x);
    const vf half = vf_mul(x, vf_set1(0.5f));
    return vf_fma(half, vf_tanh(vf_mul(inner, vf_set1(0.797884561f))), half);
}

static void apply(int64_t function, float *a, const float *b, const float *c, int64_t count) {
    const vf zero = vf_set1(0.0f), one = vf_set1(1.0f);
#define EACH(expression)                           \
    for (int64_t i = 0; i < count; i += LANES) {   \
        const vf x = vf_load(a + i);               \
        vf_store(a + i, expression);               \
    }                                              \
    break
#define EACH_PAIR(expression)                            \
    for (int64_t i = 0; i < count; i += LANES) {         \
        const vf x = vf_load(a + i), y = vf_load(b + i); \
        vf_store(a + i, expression);                     \
    }                                                    \
    break
#define EACH_PLACE(expression)                                            \
    for (int64_t i = 0; i < count; i++) a[i] = (float)(expression);       \
    break
    switch (function) {
        case NEGATE: EACH(vf_sub(vf_set1(-0.0f), x));
        case EXP: EACH(vf_exp(x));
        case SIGMOID: EACH(vf_sigmoid(x));
        case SILU: EACH(vf_mul(x, vf_sigmoid(x)));
        case TANH: EACH(vf_tanh(x));
        case GELU: EACH(vf_gelu(x));
        case GELU_TANH: EACH(vf_gelu_tanh(x));
        case RELU: EACH(vf_max(zero, x));
        case RSQRT: EACH(vf_div(one, vf_sqrt(x)));
        case SQRT: EACH(vf_sqrt(x));
        case SQUARE: EACH(vf_mul(x, x));
        case CUBE: EACH(vf_mul(vf_mul(x, x), x));
        case RECIPROCAL: EACH(vf_div(one, x));
        case LOG: EACH(vf_log(x));
        case LOG1P: EACH(vf_log1p(x));
        case EXPM1: EACH(vf_expm1(x));
        case SOFTPLUS: EACH(vf_softplus(x));
        case FLOOR: EACH(vf_floor(x));
        case ABSOLUTE: EACH(vf_abs(x));
        case ADD: EACH_PAIR(vf_add(x, y));
        case SUBTRACT: EACH_PAIR(vf_sub(x, y));
        case MULTIPLY: EACH_PAIR(vf_mul(x, y));
        case DIVIDE: EACH_PAIR(vf_div(x, y));
        /* Angles grow with the position: the library reduces them without loss. */
        case COS: EACH_PLACE(cosf(a[i]));
        case SIN: EACH_PLACE(sinf(a[i]));
        case MAXIMUM: EACH_PLACE(a[i] > b[i] || a[i] != a[i] ? a[i] : b[i]); /* NaN, if one of them is */
        case MINIMUM: EACH_PLACE(a[i] < b[i] || a[i] != a[i] ? a[i] : b[i]);
        case LESS: EACH_PLACE(a[i] < b[i]);
        case LESS_EQUAL: EACH_PLACE(a[i] <= b[i]);
        case GREATER: EACH_PLACE(a[i] > b[i]);
        case GREATER_EQUAL: EACH_PLACE(a[i] >= b[i]);
        case EQUAL: EACH_PLACE(a[i] == b[i]);
        case NOT_EQUAL: EACH_PLACE(a[i] != b[i]);
        case WHERE: EACH_PLACE(c[i] != 0.0f ? a[i] : b[i]);
        default: break;
    }
#undef EACH
#undef EACH_PAIR
#undef EACH_PLACE
}

/* Blocks of a row. */
static int64_t blocks_of(const Op *op) { return (op->shape[op->ndim - 1] + BLOCK - 1) / BLOCK; }

/* Items: blocks, row by row. */
static int64_t map_items(const Op *op) { return outer_of(op) * blocks_of(op); }

#define PLACE_VIEWS 4 /* result, two arguments, what WHERE chooses by */

/* A row of several views at once, and where it is in the dimensions before the last. */
typedef struct {
    char *rows[PLACE_VIEWS];
    int64_t index[MAX_DIMS];
} Place;

static Place place_of(const Op *op, int64_t outer) {
    Place place = {{NULL}, {0}};
    for (int v = 0; v < PLACE_VIEWS; v++)
        if (op->views[v].data != NULL) place.rows[v] = (char *)row_of(&op->views[v], op, outer);
    for (int64_t d = op->ndim - 2; d >= 0; outer /= op->shape[d], d--) place.index[d] = outer % op->shape[d];
    return place;
}

/* The next row: without a division, which would cost more than a short row does. */
static void advance(Place *place, const Op *op) {
    for (int64_t d = op->ndim - 2; d >= 0; d--) {
        const int is_last = ++place->index[d] == op->shape[d];
        for (int v = 0; v < PLACE_VIEWS; v++) {
            const View *view = &op->views[v];
            const int64_t step = is_last ? 1 - op->shape[d] : 1;
            if (view->data != NULL) place->rows[v] += step * view->strides[d] * width_of(view->dtype);
        }
        if (!is_last) return;
        place->index[d] = 0;
    }
}

/* An element of a view as an integer; of floats, the part before the point. */
static int64_t integer_at(const char *row, int64_t dtype, int64_t index) {
    if (dtype == I64) return ((const int64_t *)row)[index];
    if (dtype == BYTES) return row[index] != 0;
    float value;
    load_floats(&value, row + index * width_of(dtype), dtype, 1);
    return value >= 9.2e18f ? INT64_MAX : value > -9.2e18f ? (int64_t)value : INT64_MIN;
}

/* Wraps around as PyTorch's integers do. A quotient is rounded down; by 0 it is 0. */
static int64_t integer_of(int64_t function, int64_t a, int64_t b, int64_t c) {
    const uint64_t x = (uint64_t)a, y = (uint64_t)b;
    switch (function) {
        case NEGATE: return (int64_t)(0 - x);
        case ADD: return (int64_t)(x + y);
        case SUBTRACT: return (int64_t)(x - y);
        case MULTIPLY: return (int64_t)(x * y);
        case DIVIDE: return b == 0 ? 0 : b == -1 ? (int64_t)(0 - x) : a / b - (a % b != 0 && (a < 0) != (b < 0));
        case MAXIMUM: return a > b ? a : b;
        case MINIMUM: return a < b ? a : b;
        case LESS: return a < b;
        case LESS_EQUAL: return a <= b;
        case GREATER: return a > b;
        case GREATER_EQUAL: return a >= b;
        case EQUAL: return a == b;
        case NOT_EQUAL: return a != b;
        case WHERE: return c ? a : b;
        default: return a;
    }
}

/* `count` values of a row from place `first` on, computed in integers. */
static void map_integers(const Op *op, const Place *place, int64_t first, int64_t count) {
    const int64_t last = op->ndim - 1;
    const View *views = op->views;
    for (int64_t i = first; i < first + count; i++) {
        int64_t given[PLACE_VIEWS] = {0, 0, (int64_t)op->number[0], 0};
        for (int v = 1; v < PLACE_VIEWS; v++)
            if (views[v].data != NULL) given[v] = integer_at(place->rows[v], views[v].dtype, i * views[v].strides[last]);
        const int64_t second = integer_of(MULTIPLY, given[2], (int64_t)op->number[1], 0);
        const int64_t value = integer_of(op->function, given[1], second, given[3]);
        char *to = place->rows[0] + i * views[0].strides[last] * width_of(views[0].dtype);
        const float rounded = (float)value;
        if (views[0].dtype == I64) memcpy(to, &value, sizeof value);
        else store_floats(to, views[0].dtype, &rounded, 1);
    }
}

/* `count` values of a row from place `first` on, computed in float32. */
static void map_floats(const Op *op, const Place *place, int64_t first, int64_t count) {
    const View *out = &op->views[0], *left = &op->views[1], *right = &op->views[2], *choice = &op->views[3];
    const int64_t last = op->ndim - 1;
    const float scale = (float)op->number[1];
    float a[BLOCK], b[BLOCK], c[BLOCK];
    load_block(a, left, place->rows[1], left->strides[last], first, count);
    if (right->data != NULL) {
        load_block(b, right, place->rows[2], right->strides[last], first, count);
        for (int64_t j = 0; scale != 1.0f && j < count; j++) b[j] *= scale;
    } else {
        const float number = (float)op->number[0] * scale;
        for (int64_t j = 0; op->function >= ADD && j < count; j++) b[j] = number;
    }
    if (choice->data != NULL) load_block(c, choice, place->rows[3], choice->strides[last], first, count);
    for (int64_t j = count; j < round_up(count, LANES); j++) a[j] = b[j] = c[j] = 1.0f;
    apply(op->function, a, b, c, count);
    store_block(a, out, place->rows[0], out->strides[last], first, count);
}

/* views: result, first, second or none, what WHERE chooses by; one shape for all (a stride of 0 repeats). Without a
 * second view, the second argument is number[0]; the second argument is multiplied by number[1] first. In integers if
 * size[0] is set. */
static void map(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const int64_t inner = op->shape[op->ndim - 1], blocks = blocks_of(op);
    Place place = place_of(op, items.first / blocks);
    int64_t first = items.first % blocks * BLOCK;
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t count = inner - first < BLOCK ? inner - first : BLOCK;
        (op->size[0] ? map_integers : map_floats)(op, &place, first, count);
        first += count;
        if (first == inner && i + 1 < items.end) first = 0, advance(&place, op);
    }
}
