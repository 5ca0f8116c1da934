/* The rows of a token's slots, summed with their weights, on a CPU.
 *
 * Limit: memory. Reads the rows of the slots and writes one for a token. Rows lie anywhere, so those of the
 * next token are fetched meanwhile.
 */
#include "moe.h"

/* moe_combine(y, weights, slots, normalize) -> x. An item is a token. */
enum { Y, WEIGHTS, SLOTS, X };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = x->shape[0];
    out->phase[0].grain = moe_grain(x);
}

/* The rows that there are of a token's slots, and their weights; how many. */
DS_INLINE int64_t rows_of(const char **rows, float *weights, const ds_tensor *y, const int32_t *slots, int64_t places) {
    int64_t n = 0;
    for (int64_t k = 0; k < places; k++) {
        const char *row = moe_row(y, slots[k]);
        if (!row) continue;
        rows[n] = row;
        if (weights) weights[n] = weights[k];
        n++;
    }
    return n;
}

/* The sum of `n` rows, of which `next` are fetched. */
DS_INLINE void sum_rows(char *to, const char *const *rows, const float *weights, int64_t n, const char *const *next,
                        int64_t next_n, int64_t d, uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + DS_PAIR <= d; i += DS_PAIR) {
        ds_vec2 sum = {{0}, {0}};
        for (int64_t k = 0; k < n; k++) {
            ds_vec2 v = ds_load2(rows[k], i, t);
            ds_vec w = ds_splat(weights[k]);
            sum = (ds_vec2){ds_vfma(w, v.a, sum.a), ds_vfma(w, v.b, sum.b)};
        }
        for (int64_t k = 0; k < next_n; k++) ds_prefetch2(next[k], i, t, t == DS_F32 ? 2 : 1);
        ds_store2(to, i, sum, t, streams);
    }
    for (; i < d; i += DS_LANES) {
        ds_vec sum = {0};
        for (int64_t k = 0; k < n; k++)
            sum = ds_vfma(ds_splat(weights[k]), ds_load_first(d - i, rows[k], i, t), sum);
        ds_store_first(d - i, to, i, sum, t);
    }
}

DS_INLINE void combine(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *y = ds_arg_tensor(call, Y, 0), *x = ds_arg_tensor(call, X, 0);
    int64_t places = ds_arg_tensor(call, SLOTS, 0)->shape[1], d = ds_row_length(x);
    const int32_t *slots = ds_arg_tensor(call, SLOTS, 0)->data;
    const float *given = ds_optional(call, WEIGHTS);
    int large = ds_streams(ds_elements(x), t), normalize = call->scalars[0].i != 0;
    const char *rows[MOE_MOST_PLACES], *next[MOE_MOST_PLACES];
    float weights[MOE_MOST_PLACES];
    for (int64_t token = begin; token < end; token++) {
        int64_t at = token * places;
        weights_of(weights, given ? given + at : 0, places, normalize);
        int64_t n = rows_of(rows, weights, y, slots + at, places);
        int64_t next_n = token + 1 < end ? rows_of(next, 0, y, slots + at + places, places) : 0;
        char *to = moe_row(x, token);
        sum_rows(to, rows, weights, n, next, next_n, d, t, large && ds_aligned(to));
    }
    if (large) ds_fence();
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, combine(call, begin, end, t));
}

DS_KERNEL(ds_moe_combine, plan, run);
