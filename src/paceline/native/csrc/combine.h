/* The end of attention: the chunks' partial results of a query, in ascending order, as one output. */

typedef struct {
    const float *first; /* partial result of the first chunk */
    int64_t stride, count, width;
} Chunks;

static Chunks chunks_of(const Op *op, const Frame *frame, int64_t row, int64_t head) {
    const int64_t value_dim = op->shape[4], group = op->shape[1] / op->shape[3];
    const int64_t position = frame->rows[row].position, first = first_seen(frame->rows[row].own, op->size[0]) / CHUNK;
    const int64_t floats = partial_floats(value_dim), stride = group * floats;
    const float *partials = (const float *)(intptr_t)frame->header->partials;
    const float *start = partials + partial_index(frame, head / group, first, row) * stride + head % group * floats;
    const Chunks chunks = {start, frame->header->num_rows * stride, position / CHUNK - first + 1,
                           round_up(value_dim, LANES)};
    return chunks;
}

/* `width` outputs. A sink is a score whose key has no value; -INFINITY is none. */
static void add_chunks(Chunks chunks, float sink, float *out) {
    const int64_t width = chunks.width;
    float top = sink > LOWEST ? sink : LOWEST;
    for (int64_t c = 0; c < chunks.count; c++) {
        const float maximum = chunks.first[c * chunks.stride + width];
        top = maximum > top ? maximum : top;
    }
    float total = sink > LOWEST ? vf_lane(vf_exp(vf_set1(sink - top))) : 0.0f;
    for (int64_t i = 0; i < width; i += LANES) vf_store(out + i, vf_set1(0.0f));
    for (int64_t c = 0; c < chunks.count; c++) {
        const float *partial = chunks.first + c * chunks.stride;
        const vf scale = vf_exp(vf_set1(partial[width] - top));
        total += vf_lane(vf_mul(vf_set1(partial[width + 1]), scale));
        for (int64_t i = 0; i < width; i += LANES)
            vf_store(out + i, vf_fma(vf_load(partial + i), scale, vf_load(out + i)));
    }
    for (int64_t i = 0; i < width; i += LANES) vf_store(out + i, vf_div(vf_load(out + i), vf_set1(total)));
}

/* Items: heads of rows. */
static int64_t combine_items(const Op *op) { return frame_of(&op->views[4], op->shape[0]).num_rows * op->shape[1]; }

/* After a barrier, with the views and numbers of `attend`, and the heads' sinks (H,) as the sixth view, if any. */
static void combine(const Op *op, Worker *worker, Range items) {
    const Frame frame = frame_of(&op->views[4], op->shape[0]);
    const View *out = &op->views[0], *sinks = &op->views[5];
    const int64_t heads = op->shape[1];
    float *sums = (float *)worker->scratch;
    worker->prepared = NULL;
    for (int64_t i = items.first; i < items.end; i++) {
        const int64_t row = i / heads, head = i % heads;
        float sink = -INFINITY;
        if (sinks->data != NULL) load_floats(&sink, element(sinks, head, 0, 0), sinks->dtype, 1);
        add_chunks(chunks_of(op, &frame, row, head), sink, sums);
        store_floats((char *)element(out, row, head, 0), out->dtype, sums, op->shape[4]);
    }
}
