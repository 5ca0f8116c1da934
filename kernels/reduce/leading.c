/* The sum of all rows, on a CPU: the gradient of what was repeated, such as a bias.
 *
 * Limit: memory. An element is read once, and one row is written.
 */
#include "ds_cpu_simd.h"

/* sum_leading(x) -> y. Phase 0: an item is a row, a chunk of rows leaves its share in the workspace,
 * [chunks, D] in f64, whole pairs in the order of the dtype's pairs. Phase 1: an item is a column, the
 * shares are added in their order. */
enum { X, Y };
enum {
    CHUNK_ELEMENTS = 16 * 1024,
    MOST_CHUNKS = 64, /* and so the parallelism */
    BLOCK_ROWS = 64,  /* f32 sums of so many terms; between blocks, f64 */
    AT_ONCE = 4,      /* rows that are added together, so that a sum is loaded and stored once for them */
    STRIP = 1024,     /* columns whose sums the first cache holds */
    PAIR = 2 * DS_LANES,
};

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    int64_t rows = ds_rows(x), d = ds_row_length(x);
    int64_t enough = ds_div_up(CHUNK_ELEMENTS, ds_max(1, d));
    int64_t grain = ds_max(ds_max(enough, ds_div_up(rows, MOST_CHUNKS)), 1);
    out->phases = 2;
    out->phase[0].items = rows;
    out->phase[0].grain = grain;
    out->phase[1].items = d;
    out->phase[1].grain = 8 * PAIR;
    out->workspace_bytes = ds_div_up(rows, grain) * d * 8;
}

/* Adds `count` rows' elements i and following, a pair or the first `n` of a vector; meanwhile fetches those of
 * the rows that are `next`. */
DS_INLINE ds_vec2 add_pairs(ds_vec2 sum, const void *const *rows, const void *const *next, int count, int64_t i,
                            uint32_t t) {
    for (int r = 0; r < count; r++) {
        if (t != DS_F32) ds_prefetch2(next[r], i, t, 1); /* a strip of f32 is long enough for the processor's own */
        ds_vec2 v = ds_load2(rows[r], i, t);
        sum = (ds_vec2){sum.a + v.a, sum.b + v.b};
    }
    return sum;
}

DS_INLINE void add_rows(float *sums, const void *const *rows, const void *const *next, int count, int64_t n,
                        uint32_t t) {
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        ds_vec2 sum = ds_load2(sums, i, DS_F32);
        ds_store2(sums, i, add_pairs(sum, rows, next, count, i, t), DS_F32, 0);
    }
    for (; i < n; i += DS_LANES) {
        ds_vec sum = ds_load(sums, i, DS_F32);
        for (int r = 0; r < count; r++) sum += ds_load_first(n - i, rows[r], i, t);
        ds_store(sums, i, sum, DS_F32);
    }
}

/* What is read AT_ONCE rows after row `row` of a strip: of the strip, else of the one beside it or below. */
static __attribute__((noinline)) const void *next_of(const ds_tensor *x, int64_t row, int64_t column, int64_t block,
                                                     int64_t last) {
    int64_t next = row + AT_ONCE;
    if (next >= last && column + STRIP < ds_row_length(x)) next = ds_min(block + next % AT_ONCE, row), column += STRIP;
    else if (next >= last && next < ds_rows(x)) column = 0;
    return ds_at(x->data, ds_row_offset(x, ds_min(next, ds_rows(x) - 1)) + column, x->dtype);
}

DS_INLINE void run_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    ds_plan made;
    plan(call, &made);
    int64_t d = ds_row_length(x), grain = made.phase[0].grain;
    _Alignas(64) float sums[STRIP + DS_LANES];
    int large = t != DS_F32 && ds_streams(ds_elements(x), t); /* else the caches are near enough */
    for (int64_t chunk = begin; chunk < end; chunk += grain) {
        double *share = (double *)call->workspace + chunk / grain * d;
        __builtin_memset(share, 0, (size_t)d * 8);
        int64_t stop = ds_min(chunk + grain, end);
        for (int64_t block = chunk; block < stop; block += BLOCK_ROWS) {
            int64_t last = ds_min(block + BLOCK_ROWS, stop);
            for (int64_t column = 0; column < d; column += STRIP) {
                int64_t n = ds_min(STRIP, d - column);
                __builtin_memset(sums, 0, sizeof sums);
                for (int64_t row = block; row < last;) {
                    const void *rows[AT_ONCE], *next[AT_ONCE];
                    int count = (int)ds_min(AT_ONCE, last - row);
                    for (int r = 0; r < count; r++, row++) {
                        rows[r] = ds_at(x->data, ds_row_offset(x, row) + column, t);
                        next[r] = large ? next_of(x, row, column, block, last) : rows[r];
                    }
                    if (count == AT_ONCE) add_rows(sums, rows, next, AT_ONCE, n, t);
                    else add_rows(sums, rows, next, count, n, t);
                }
                for (int64_t i = 0; i < n; i++) share[column + i] += (double)sums[i];
            }
        }
    }
}

static void run_columns(const ds_call *call, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    ds_plan made;
    plan(call, &made);
    int64_t d = ds_row_length(x);
    const double *shares = call->workspace, *shares_end = shares + made.workspace_bytes / 8;
    for (int64_t i = begin; i < end; i += PAIR) {
        int64_t n = ds_min(PAIR, end - i);
        double sums[PAIR] = {0};
        for (const double *share = shares + i; share < shares_end; share += d)
            for (int64_t k = 0; k < n; k++) sums[k] += share[k];
        float rounded[PAIR];
        for (int64_t k = 0; k < n; k++) rounded[k] = (float)sums[k];
        if (n == PAIR && x->dtype == y->dtype) {
            ds_store2(y->data, i, ds_load2(rounded, 0, DS_F32), y->dtype, 0);
            continue;
        }
        int in_turns = n == PAIR && x->dtype == DS_BF16;
        for (int64_t k = 0; k < n; k++) {
            float sum = rounded[in_turns ? k / 2 + k % 2 * DS_LANES : k];
            ds_store_first(1, y->data, i + k, ds_splat(sum), y->dtype);
        }
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 1) run_columns(call, begin, end);
    else DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run_rows(call, begin, end, t));
}

DS_KERNEL(ds_sum_leading, plan, run);
