/* A short causal convolution of each channel over the inputs on a row's path. */

#define MAX_TAPS 8
#define CHANNELS 64 /* of an item */

/* What a row may look back at, of some channels: the state, accepted rows, the tree's rows. */
typedef struct {
    int64_t before; /* places before the tree's rows */
    float inputs[MAX_TAPS + 2 * PAGE][CHANNELS];
} History;

static void gather_history(const Op *op, const StateFrame *frame, const StateRows *rows, Range channels, History *h) {
    const View *x = &op->views[1], *states = &op->views[4], *traces = &op->views[5];
    const int64_t count = channels.end - channels.first, taps = op->shape[2];
    int64_t place = 0;
    for (int64_t t = 0; t + 1 < taps; t++, place++) {
        const int64_t from = rows->slot * states->strides[0] + t * states->strides[1] + channels.first;
        if (rows->is_fresh) memset(h->inputs[place], 0, sizeof h->inputs[place]);
        else load_floats(h->inputs[place], states->data + from * 4, F32, count);
    }
    for (int64_t i = 0; i < rows->num_accepted; i++, place++) {
        const char *from = trace_of(traces, rows, 1, frame->table[rows->accepted + i]) + channels.first * 4;
        load_floats(h->inputs[place], from, F32, count);
    }
    h->before = place;
    for (int64_t r = 0; r < rows->first + rows->num_rows; r++, place++) {
        char *trace = trace_of(traces, rows, 0, r) + channels.first * 4;
        if (r < rows->first) {
            load_floats(h->inputs[place], trace, F32, count);
            continue;
        }
        const char *from = element(x, rows->first_row + r - rows->first, channels.first, 0);
        load_strided(h->inputs[place], from, x->dtype, x->strides[1], count);
        store_floats(trace, F32, h->inputs[place], count);
    }
}

/* Makes the last inputs before place `end` the state. */
static void store_last(const Op *op, const StateRows *rows, Range channels, const History *h, int64_t end) {
    const View *states = &op->views[4];
    for (int64_t t = 0; t + 1 < op->shape[2]; t++) {
        const int64_t to = rows->slot * states->strides[0] + t * states->strides[1] + channels.first;
        store_floats(states->data + to * 4, F32, h->inputs[end - op->shape[2] + 1 + t], channels.end - channels.first);
    }
}

/* The output of row `r` of the tree. */
static void convolve_row(const Op *op, const int64_t *parents, int64_t r, Range channels, const History *h, float *out) {
    const View *weight = &op->views[2], *bias = &op->views[3];
    const int64_t taps = op->shape[2], count = channels.end - channels.first;
    int64_t places[MAX_TAPS], place = h->before + r;
    for (int64_t t = taps - 1; t >= 0; t--) {
        places[t] = place;
        place = place < h->before ? place - 1 : h->before + parents[place - h->before];
    }
    float w[CHANNELS] = {0};
    memset(out, 0, CHANNELS * sizeof *out);
    if (bias->data != NULL) load_floats(out, bias->data + channels.first * 4, F32, count);
    for (int64_t t = 0; t < taps; t++) {
        load_floats(w, weight->data + (t * weight->strides[0] + channels.first) * 4, F32, count);
        for (int64_t c = 0; c < CHANNELS; c += LANES)
            vf_store(out + c, vf_fused(vf_load(w + c), vf_load(h->inputs[places[t]] + c), vf_load(out + c)));
    }
}

static int64_t channel_blocks(const Op *op) { return (op->shape[1] + CHANNELS - 1) / CHANNELS; }

/* Items: blocks of channels of a sequence. */
static int64_t convolve_items(const Op *op) { return state_frame_of(op).num_sequences * channel_blocks(op); }

/* views: result (R, C), x (R, C), weight (K, C) and bias (C) or none, states (slots, K - 1, C) and traces
 * (slots, 2, PAGE, C) in float32. shape R, C, K; size: address of the header. */
static void convolve(const Op *op, Worker *worker, Range items) {
    (void)worker;
    const StateFrame frame = state_frame_of(op);
    const int64_t blocks = channel_blocks(op);
    for (int64_t i = items.first; i < items.end; i++) {
        const StateRows *rows = frame.sequences + i / blocks;
        const Range channels = {i % blocks * CHANNELS, least((i % blocks + 1) * CHANNELS, op->shape[1])};
        History h;
        float out[CHANNELS];
        gather_history(op, &frame, rows, channels, &h);
        if (is_changed(rows)) store_last(op, rows, channels, &h, h.before);
        for (int64_t r = rows->first; r < rows->first + rows->num_rows; r++) {
            convolve_row(op, frame.table + rows->parents, r, channels, &h, out);
            char *to = (char *)element(&op->views[0], rows->first_row + r - rows->first, channels.first, 0);
            store_floats(to, op->views[0].dtype, out, channels.end - channels.first);
        }
        if (rows->is_kept) store_last(op, rows, channels, &h, h.before + rows->first + rows->num_rows);
    }
}
