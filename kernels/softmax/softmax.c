/* Softmax over the last dimension and its logarithm, on a CPU.
 *
 * Limit: memory. An element is read and written once, 2 of T an element. A row is looked at a second
 * time for its results, when it is in a cache: the first level holds about 10000 of f32, the second
 * half a million, so only what is longer comes from memory twice. The next row is fetched meanwhile.
 * Two exponentials an element, some 20 cycles of a vector of 16, stay below the time of memory.
 */
#include "ds_cpu_softmax.h"

enum { CHUNK_ELEMENTS = 16 * 1024 /* worth a thread's while */ };

/* softmax(x, mask, scale, causal) -> y; an item is a row. log_softmax(x) -> y. */
enum { X, MASK, Y, LOG_Y = 1 };
enum { SCALE };
enum { CAUSAL };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x)));
}

/* How a row's results follow from its scores: exp(score - max) * factor, or score - max - log(sum). */
typedef struct {
    ds_vec max, factor, log_sum;
} outcome;

DS_ONCE outcome outcome_of(const ds_softmax *row, int is_masked) {
    /* A row that a mask leaves nothing of is all 0, as in PyTorch's attention; without a mask
     * infinity times 0 makes it NaN, as in PyTorch's softmax. */
    float factor = row->sum == 0 && is_masked ? 0 : (float)(1 / row->sum);
    return (outcome){ds_splat(row->max), ds_splat(factor), ds_splat(ds_log((float)row->sum))};
}

/* Results of the first `n` elements of a row; fetches from `next`, where there is one. */
DS_INLINE void finish_row(void *y, const ds_scores *s, const void *next, int64_t n, outcome o, uint32_t t,
                          int masked, int log, int streams) {
    int64_t i = 0;
    for (; i + DS_SCORE_PAIR <= n; i += DS_SCORE_PAIR) {
        if (next) ds_prefetch2(next, i, t, 2);
        ds_vec2 v = ds_scores2(s, i, o.max, t, masked);
        if (log) v = (ds_vec2){v.a - o.log_sum, v.b - o.log_sum};
        else v = (ds_vec2){ds_vexp(v.a) * o.factor, ds_vexp(v.b) * o.factor};
        ds_store2(y, i, v, t, streams);
    }
    for (; i < n; i += DS_LANES) {
        ds_vec v = ds_scores_first(n - i, s, i, o.max, t, masked);
        v = log ? v - o.log_sum : ds_vexp(v) * o.factor;
        ds_store_first(n - i, y, i, v, t);
    }
}

/* Columns that row `row` sees. */
static int64_t visible(const ds_tensor *x, int64_t row, int64_t causal) {
    int64_t d = ds_row_length(x);
    if (!causal) return d;
    int64_t queries = x->ndim > 1 ? x->shape[x->ndim - 2] : 1;
    return ds_max(0, ds_min(d, d - queries + row % queries + 1));
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t, int masked, int log) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, log ? LOG_Y : Y, 0);
    const ds_tensor *mask = masked ? ds_arg_tensor(call, MASK, 0) : 0;
    int64_t causal = log ? 0 : call->attributes[CAUSAL].i, d = ds_row_length(x);
    int large = ds_streams(ds_elements(y), t) && x->data != y->data;
    ds_scores s = {.scale = log ? 1 : (float)call->scalars[SCALE].f};
    for (int64_t row = begin; row < end; row++) {
        s.x = ds_at(x->data, ds_row_offset(x, row), t);
        if (masked) {
            s.mask = ds_at(mask->data, ds_row_offset(mask, row), t);
            s.mask_stride = mask->strides[mask->ndim - 1];
        }
        int64_t n = visible(x, row, causal);
        ds_softmax seen = ds_softmax_none();
        ds_softmax_add(&seen, &s, n, t, masked, 0);
        outcome o = outcome_of(&seen, masked);
        const void *next = row + 1 < end ? ds_at(x->data, ds_row_offset(x, row + 1), t) : 0;
        void *to = ds_at(y->data, ds_row_offset(y, row), t);
        finish_row(to, &s, next, n, o, t, masked, log, large && ds_aligned(to));
        __builtin_memset(ds_at(to, n, t), 0, (size_t)((d - n) * ds_size(t)));
    }
    if (large) ds_fence();
}

/* One body a dtype, with a mask and without, serves both kernels. */
DS_ONCE void rows(const ds_call *call, int64_t begin, int64_t end, int log) {
    int masked = !log && call->args[MASK].count;
    if (masked) DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, t, 1, 0));
    else DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, t, 0, log));
}

static void softmax(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    rows(call, begin, end, 0);
}

static void log_softmax(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    rows(call, begin, end, 1);
}

DS_KERNEL(ds_softmax_rows, plan, softmax);
DS_KERNEL(ds_log_softmax, plan, log_softmax);
