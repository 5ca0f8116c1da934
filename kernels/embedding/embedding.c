/* Rows of a table by their indices, and the gradient of the table, on a CPU.
 *
 * Limit: memory. Forward reads and writes a row of T for each index. Backward reads as much and
 * writes the table: every row of it once, past the caches where it is large, never zeros first and
 * sums later. A row is read while the one before it is written.
 */
#include "ds_cpu_copy.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    TILE = 1024, /* columns that are summed at a time, in the first level of the caches */
};

/* embedding(weight, indices) -> y; an item is an index. */
enum { WEIGHT, INDICES, Y };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *weight = ds_arg_tensor(call, WEIGHT, 0);
    out->phases = 1;
    out->phase[0].items = ds_elements(ds_arg_tensor(call, INDICES, 0));
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, weight->shape[1]));
}

/* Row `index` of the table, NULL where it has no such row. */
static const char *table_row(const ds_tensor *weight, int64_t index) {
    if (index < 0 || index >= weight->shape[0]) return 0;
    return ds_at(weight->data, index * weight->strides[0], weight->dtype);
}

/* Quiet NaN in every element. */
static void spoil_row(void *to, int64_t d, uint32_t dtype) {
    for (int64_t i = 0; i < d; i++) {
        if (dtype == DS_F32) ((uint32_t *)to)[i] = 0x7fc00000;
        else ((uint16_t *)to)[i] = dtype == DS_BF16 ? 0x7fc0 : 0x7e00;
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *weight = ds_arg_tensor(call, WEIGHT, 0), *indices = ds_arg_tensor(call, INDICES, 0);
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    int64_t d = weight->shape[1], bytes = d * ds_size(weight->dtype);
    int large = ds_streams(ds_elements(y), y->dtype);
    const char *from = table_row(weight, ds_index_at(indices, begin));
    for (int64_t i = begin; i < end; i++) {
        const char *next = i + 1 < end ? table_row(weight, ds_index_at(indices, i + 1)) : 0;
        void *to = ds_at(y->data, ds_row_offset(y, i), y->dtype);
        if (from) ds_copy_bytes(to, from, next, bytes, large);
        else spoil_row(to, d, y->dtype);
        from = next;
    }
    if (large) ds_fence();
}

/* embedding_backward(dy, indices, dweight, padding_idx, accumulate).
 *
 * Phase 0, one item: a counting sort of the indices. `ends[v]` is how many of those that count are at
 * most v; `order` lists their places, those of one row in rising order. Phase 1: an item is a row of
 * the table. */
enum { DY, B_INDICES, DWEIGHT };
enum { PADDING_IDX, ACCUMULATE };

static void backward_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *dweight = ds_arg_tensor(call, DWEIGHT, 0);
    int64_t rows = dweight->shape[0], count = ds_elements(ds_arg_tensor(call, B_INDICES, 0));
    out->phases = 2;
    out->phase[0].items = out->phase[0].grain = 1;
    out->phase[1].items = rows;
    out->phase[1].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, dweight->shape[1]));
    out->workspace_bytes = (rows + count) * 8;
}

static void sort(const ds_call *call) {
    const ds_tensor *indices = ds_arg_tensor(call, B_INDICES, 0);
    int64_t rows = ds_arg_tensor(call, DWEIGHT, 0)->shape[0], count = ds_elements(indices);
    int64_t padding = call->scalars[PADDING_IDX].i, *ends = call->workspace, *order = ends + rows;
    __builtin_memset(ends, 0, (size_t)rows * 8);
    for (int64_t i = 0; i < count; i++) {
        int64_t v = ds_index_at(indices, i);
        if (v >= 0 && v < rows && v != padding) ends[v]++;
    }
    int64_t begin = 0;
    for (int64_t v = 0; v < rows; v++) {
        int64_t n = ends[v];
        ends[v] = begin;
        begin += n;
    }
    for (int64_t i = 0; i < count; i++) { /* moves each beginning to its end */
        int64_t v = ds_index_at(indices, i);
        if (v >= 0 && v < rows && v != padding) order[ends[v]++] = i;
    }
}

/* sum[i] += x[i] for a tile's first `n` elements; fetches from `next`. Whole pairs are kept in the
 * order of the dtype's pairs. */
DS_INLINE void add_tile(float *sum, const void *x, const void *next, int64_t n, uint32_t t) {
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        if (next) ds_prefetch2(next, i, t, 1);
        ds_vec2 s = ds_load2(sum, i, DS_F32), v = ds_load2(x, i, t);
        ds_store2(sum, i, (ds_vec2){s.a + v.a, s.b + v.b}, DS_F32, 0);
    }
    for (; i < n; i += DS_LANES) {
        ds_vec s = ds_load_first(n - i, sum, i, DS_F32) + ds_load_first(n - i, x, i, t);
        ds_store_first(n - i, sum, i, s, DS_F32);
    }
}

DS_INLINE void put_tile(void *to, const float *sum, int64_t n, uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) ds_store2(to, i, ds_load2(sum, i, DS_F32), t, streams);
    for (; i < n; i += DS_LANES) ds_store_first(n - i, to, i, ds_load_first(n - i, sum, i, DS_F32), t);
}

/* A row that nothing is added to: most of them, where the table is large. */
static void clear_row(char *to, int64_t bytes, int streams) {
    int64_t i = 0, width = sizeof(ds_vec);
    if (streams && ds_aligned(to))
        for (; i + width <= bytes; i += width) ds_put(to + i, (ds_vec_u32){0}, 1);
    __builtin_memset(to + i, 0, (size_t)(bytes - i));
}

DS_INLINE void sum_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *dy = ds_arg_tensor(call, DY, 0), *dweight = ds_arg_tensor(call, DWEIGHT, 0);
    int64_t rows = dweight->shape[0], d = dweight->shape[1];
    int accumulate = call->scalars[ACCUMULATE].i != 0;
    const int64_t *ends = call->workspace, *order = ends + rows;
    int large = ds_streams(ds_elements(dweight), t) && !accumulate;
    for (int64_t row = begin; row < end; row++) {
        int64_t first = row ? ends[row - 1] : 0, last = ends[row];
        if (first == last && accumulate) continue;
        char *to = ds_at(dweight->data, row * d, t);
        if (first == last) {
            clear_row(to, d * ds_size(t), large);
            continue;
        }
        for (int64_t column = 0; column < d; column += TILE) {
            int64_t n = ds_min(TILE, d - column);
            _Alignas(64) float sum[TILE];
            __builtin_memset(sum, 0, (size_t)n * 4);
            void *out = ds_at(to, column, t);
            if (accumulate) add_tile(sum, out, 0, n, t);
            for (int64_t k = first; k < last; k++) {
                const void *x = ds_at(dy->data, ds_row_offset(dy, order[k]) + column, t);
                const void *next = k + 1 < last ? ds_at(dy->data, ds_row_offset(dy, order[k + 1]) + column, t) : 0;
                add_tile(sum, x, next, n, t);
            }
            put_tile(out, sum, n, t, large && ds_aligned(out));
        }
    }
    if (large) ds_fence();
}

static void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) sort(call);
    else DS_WITH_FLOAT(t, ds_arg_tensor(call, DWEIGHT, 0)->dtype, sum_rows(call, begin, end, t));
}

DS_KERNEL(ds_embedding, plan, run);
DS_KERNEL(ds_embedding_backward, backward_plan, backward);
