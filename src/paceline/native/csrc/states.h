/* Recurrent layers: which rows each sequence has in a forward, and where its state is. See model/states.py.
 *
 * As a frame's, the header stands at an address that never changes. */

typedef struct {
    int64_t num_sequences;
    int64_t table; /* address of int64: sequences, then what they point to */
} StateHeader;

/* Rows of one sequence: the last `num_rows` of a tree, whose traces are in half `half` of its slot's. */
typedef struct {
    int64_t first_row, num_rows;
    int64_t slot, half;
    int64_t first;                  /* rows of the tree whose traces are there already */
    int64_t is_fresh, is_kept;      /* the state is zero before; the state after the last row is to be kept */
    int64_t accepted, num_accepted; /* offset of the traces in the other half that belong to the state now */
    int64_t parents;                /* offset of each row's parent in the tree; -1 is the last committed position */
} StateRows;

typedef struct {
    const int64_t *table;
    const StateRows *sequences;
    int64_t num_sequences;
} StateFrame;

static StateFrame state_frame_of(const Op *op) {
    const StateHeader *header = (const StateHeader *)(intptr_t)op->size[0];
    const int64_t *table = (const int64_t *)(intptr_t)header->table;
    const StateFrame frame = {table, (const StateRows *)table, header->num_sequences};
    return frame;
}

/* Place of a trace: `traces` is (slots, 2, PAGE, floats), float32. */
INLINE char *trace_of(const View *traces, const StateRows *rows, int64_t is_other, int64_t row) {
    const int64_t half = is_other ? 1 - rows->half : rows->half;
    const int64_t place = rows->slot * traces->strides[0] + half * traces->strides[1] + row * traces->strides[2];
    return traces->data + place * 4;
}

/* The state has to be written before the rows: nothing was there, or rows have been accepted. */
INLINE int is_changed(const StateRows *rows) { return rows->is_fresh || rows->num_accepted > 0; }
