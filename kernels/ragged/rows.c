/* Rows of a ragged batch: embeddings of tokens at their positions, and the last row of each sequence, on a
 * CPU.
 *
 * Limit: memory. Each row is read once and written once.
 */
#include "ds_cpu_rows.h"
#include "ds_cpu_copy.h"
#include "pages.h"

/* ragged_embed(weight, ids, positions, q_starts, seen, offset) -> y; an item is a token. */
enum { WEIGHT, IDS, POSITIONS, STARTS, SEEN, Y };

static void embed_plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_elements(ds_arg_tensor(call, IDS, 0));
    out->phase[0].grain = ds_row_grain(ds_row_length(ds_arg_tensor(call, WEIGHT, 0)));
}

/* Row `index` of a table, NULL where it has no such row. */
static const void *table_row(const ds_tensor *table, int64_t index) {
    if (index < 0 || index >= table->shape[0]) return 0;
    return ds_at(table->data, index * table->strides[0], table->dtype);
}

DS_INLINE void fill_row(void *y, int64_t d, float with, uint32_t t) {
    for (int64_t i = 0; i < d; i += DS_LANES) ds_store_first(d - i, y, i, ds_splat(with), t);
}

DS_INLINE void add_rows(void *y, const void *a, const void *b, int64_t d, uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + DS_PAIR <= d; i += DS_PAIR) {
        ds_vec2 l = ds_load2(a, i, t), r = ds_load2(b, i, t);
        ds_store2(y, i, (ds_vec2){l.a + r.a, l.b + r.b}, t, streams);
    }
    for (; i < d; i += DS_LANES)
        ds_store_first(d - i, y, i, ds_load_first(d - i, a, i, t) + ds_load_first(d - i, b, i, t), t);
}

/* What lies behind the extents of a table: no row of one is there. */
static int64_t position_of(const ds_call *call, const pages_sequence *s, int64_t token) {
    int64_t seen = ds_index_at(ds_arg_tensor(call, SEEN, 0), s->index), position;
    if (seen < 0 || __builtin_add_overflow(seen, call->scalars[0].i, &position)) return -1;
    return __builtin_add_overflow(position, token - s->first, &position) ? -1 : position;
}

DS_INLINE void embed(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *weight = ds_arg_tensor(call, WEIGHT, 0), *positions = ds_arg_tensor(call, POSITIONS, 0);
    const ds_tensor *ids = ds_arg_tensor(call, IDS, 0), *starts = ds_arg_tensor(call, STARTS, 0);
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    const int64_t d = weight->shape[1], sequences = ds_arg_tensor(call, SEEN, 0)->shape[0];
    const int are_wrong = pages_are_wrong(starts, sequences, ids->shape[0]);
    const int large = ds_streams(ds_elements(y), t);
    pages_sequence s = {-1, 0, 0};
    for (int64_t token = begin; token < end; token++) {
        void *to = ds_at(y->data, token * d, t);
        if (!are_wrong) {
            s = pages_next(starts, s, token);
            if (s.index < 0) {
                fill_row(to, d, 0, t);
                continue;
            }
        }
        const void *word = are_wrong ? 0 : table_row(weight, ds_index_at(ids, token));
        const void *place = are_wrong ? 0 : table_row(positions, position_of(call, &s, token));
        if (word && place) add_rows(to, word, place, d, t, large && ds_aligned(to));
        else fill_row(to, d, __builtin_nanf(""), t);
    }
    if (large) ds_fence();
}

static void embed_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, WEIGHT, 0)->dtype, embed(call, begin, end, t));
}

/* logits_gather(x, starts, ends) -> y; an item is a sequence. */
enum { X, G_STARTS, G_ENDS, G_Y };

static void gather_plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_elements(ds_arg_tensor(call, G_STARTS, 0));
    out->phase[0].grain = ds_row_grain(ds_row_length(ds_arg_tensor(call, X, 0)));
}

static void gather(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, G_Y, 0);
    const ds_tensor *starts = ds_arg_tensor(call, G_STARTS, 0), *ends = ds_arg_tensor(call, G_ENDS, 0);
    const int64_t d = x->shape[1];
    for (int64_t n = begin; n < end; n++) {
        int64_t start = ds_index_at(starts, n), last = ds_index_at(ends, n);
        const void *row = start >= 0 && start < last ? table_row(x, last - 1) : 0;
        void *to = ds_at(y->data, n * d, y->dtype);
        if (row) ds_copy_bytes(to, row, 0, d * ds_size(x->dtype), 0);
        else DS_WITH_FLOAT(t, y->dtype, fill_row(to, d, __builtin_nanf(""), t));
    }
}

DS_KERNEL(ds_ragged_embed, embed_plan, embed_any);
DS_KERNEL(ds_logits_gather, gather_plan, gather);
