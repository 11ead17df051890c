/* Elementwise functions over strided views, and reductions of rows: what a model does between its products.
 *
 * Values are computed in float32 and rounded once to the result's dtype, in blocks that are filled up to whole
 * vectors: a value's bits do not depend on where it stands. */
#include <math.h>

enum function {
    COPY, NEGATE, EXP, SIGMOID, SILU, TANH, GELU, GELU_TANH, RELU, RSQRT, SQRT, COS, SIN, SQUARE, CUBE, RECIPROCAL,
    ADD, SUBTRACT, MULTIPLY, DIVIDE
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

static void apply(int64_t function, float *a, const float *b, int64_t count) {
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
        case ADD: EACH_PAIR(vf_add(x, y));
        case SUBTRACT: EACH_PAIR(vf_sub(x, y));
        case MULTIPLY: EACH_PAIR(vf_mul(x, y));
        case DIVIDE: EACH_PAIR(vf_div(x, y));
        /* Angles grow with the position: the library reduces them without loss. */
        case COS:
            for (int64_t i = 0; i < count; i++) a[i] = cosf(a[i]);
            break;
        case SIN:
            for (int64_t i = 0; i < count; i++) a[i] = sinf(a[i]);
            break;
        default: break;
    }
#undef EACH
#undef EACH_PAIR
}

/* Blocks of a row. */
static int64_t blocks_of(const Op *op) { return (op->shape[op->ndim - 1] + BLOCK - 1) / BLOCK; }

/* Items: blocks, row by row. */
static int64_t map_items(const Op *op) { return outer_of(op) * blocks_of(op); }

/* A row of several views at once, and where it is in the dimensions before the last. */
typedef struct {
    char *rows[3];
    int64_t index[MAX_DIMS];
} Place;

static Place place_of(const Op *op, int64_t outer) {
    Place place = {{NULL, NULL, NULL}, {0}};
    for (int v = 0; v < 3; v++)
        if (op->views[v].data != NULL) place.rows[v] = (char *)row_of(&op->views[v], op, outer);
    for (int64_t d = op->ndim - 2; d >= 0; outer /= op->shape[d], d--) place.index[d] = outer % op->shape[d];
    return place;
}

/* The next row: without a division, which would cost more than a short row does. */
static void advance(Place *place, const Op *op) {
    for (int64_t d = op->ndim - 2; d >= 0; d--) {
        const int is_last = ++place->index[d] == op->shape[d];
        for (int v = 0; v < 3; v++) {
            const View *view = &op->views[v];
            const int64_t step = is_last ? 1 - op->shape[d] : 1;
            if (view->data != NULL) place->rows[v] += step * view->strides[d] * width_of(view->dtype);
        }
        if (!is_last) return;
        place->index[d] = 0;
    }
}

/* views: result, first, second or none; one shape for all (a stride of 0 repeats). Without a second view, the second
 * argument is number[0]; the second argument is multiplied by number[1] first. */
static void map(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *left = &op->views[1], *right = &op->views[2];
    const int64_t last = op->ndim - 1, inner = op->shape[last], blocks = blocks_of(op);
    const float scale = (float)op->number[1];
    Place place = place_of(op, items.first / blocks);
    int64_t first = items.first % blocks * BLOCK;
    float a[BLOCK] = {0}, b[BLOCK];
    if (right->data == NULL) for (int i = 0; i < BLOCK; i++) b[i] = (float)op->number[0] * scale;
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t count = inner - first < BLOCK ? inner - first : BLOCK;
        load_block(a, left, place.rows[1], left->strides[last], first, count);
        if (right->data != NULL) {
            load_block(b, right, place.rows[2], right->strides[last], first, count);
            for (int64_t j = 0; scale != 1.0f && j < count; j++) b[j] *= scale;
        }
        for (int64_t j = count; j < round_up(count, LANES); j++) {
            a[j] = 1.0f;
            if (right->data != NULL) b[j] = 1.0f;
        }
        apply(op->function, a, b, count);
        store_block(a, out, place.rows[0], out->strides[last], first, count);
        first += count;
        if (first == inner && i + 1 < items.end) first = 0, advance(&place, op);
    }
}

/* The sum of n contiguous or strided floats, in lanes and then across: one order for a given n. */
static float sum_of(const View *view, const char *row, int64_t stride, int64_t n, float shift, int squared) {
    WideSum total;
    for (int v = 0; v < SUM_VECS; v++) total.lanes[v] = vf_set1(0.0f);
    for (int64_t first = 0; first < n; first += BLOCK) {
        float block[BLOCK];
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        load_block(block, view, row, stride, first, count);
        for (int64_t i = count; i < round_up(count, MAX_LANES); i++) block[i] = shift;
        for (int64_t i = 0; i < count; i += MAX_LANES) {
            UNROLL for (int v = 0; v < SUM_VECS; v++) {
                const vf x = vf_sub(vf_load(block + i + v * LANES), vf_set1(shift));
                total.lanes[v] = squared ? vf_fma(x, x, total.lanes[v]) : vf_add(total.lanes[v], x);
            }
        }
    }
    return sum_across(total);
}

/* views: result (..., 1), x (..., N): the mean of the last dimension, or with function 1 its sum. */
static void mean(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *x = &op->views[1];
    const int64_t last = op->ndim - 1, n = op->shape[last];
    for (int64_t row = items.first; row < items.end; row++) {
        const float sum = sum_of(x, row_of(x, op, row), x->strides[last], n, 0.0f, 0);
        const float value = op->function ? sum : sum / (float)n;
        store_floats((char *)row_of(out, op, row), out->dtype, &value, 1);
    }
}

/* views: result, x, weight (N) or none, bias (N) or none; number[0] is epsilon: the last dimension normalised. */
static void layer_norm(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *x = &op->views[1], *weight = &op->views[2], *bias = &op->views[3];
    const int64_t last = op->ndim - 1, n = op->shape[last];
    for (int64_t row = items.first; row < items.end; row++) {
        const char *from = row_of(x, op, row);
        const float center = sum_of(x, from, x->strides[last], n, 0.0f, 0) / (float)n;
        const float variance = sum_of(x, from, x->strides[last], n, center, 1) / (float)n;
        const float scale = 1.0f / sqrtf(variance + (float)op->number[0]);
        for (int64_t first = 0; first < n; first += BLOCK) {
            float a[BLOCK] = {0}, w[BLOCK], b[BLOCK] = {0};
            const int64_t count = n - first < BLOCK ? n - first : BLOCK;
            for (int i = 0; i < BLOCK; i++) w[i] = 1.0f;
            load_block(a, x, from, x->strides[last], first, count);
            if (weight->data != NULL) load_block(w, weight, weight->data, 1, first, count);
            if (bias->data != NULL) load_block(b, bias, bias->data, 1, first, count);
            for (int64_t i = 0; i < count; i += LANES) {
                const vf normal = vf_mul(vf_sub(vf_load(a + i), vf_set1(center)), vf_set1(scale));
                vf_store(a + i, vf_fma(normal, vf_load(w + i), vf_load(b + i)));
            }
            store_block(a, out, (char *)row_of(out, op, row), out->strides[last], first, count);
        }
    }
}

/* views: result (M, K), tokens (M) int64, table (V, K): rows of a table by token. shape M, K; size: V.
 * A token outside [0, V) reads the nearest row. */
static void gather(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const View *out = &op->views[0], *tokens = &op->views[1], *table = &op->views[2];
    const int64_t width = width_of(table->dtype);
    for (int64_t r = items.first; r < items.end; r++) {
        const int64_t token = clamped(((const int64_t *)tokens->data)[r * tokens->strides[0]], op->size[0]);
        memcpy(out->data + r * out->strides[0] * width, table->data + token * table->strides[0] * width,
               (size_t)(op->shape[1] * width));
    }
}
