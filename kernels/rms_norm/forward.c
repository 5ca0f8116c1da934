/* RMS normalisation over the last dimension, alone and of a sum with a residual, on a CPU.
 *
 * Limit: memory. rms_norm moves 2 elements of T an element (x in, y out), add_rms_norm 4 (x and
 * residual in, sum and y out). A row is needed twice, first for its sum of squares and then for its
 * results, so one loop computes the results of a row, by now in a cache, and the squares of the next
 * one, which comes from memory: memory is never idle, and the weight is read once for both. Large
 * results go past the caches, else a store would first read what it overwrites; so that the sum can,
 * it is made twice rather than kept. About 4 flops an element are free.
 */
#include "ds_cpu_norm.h"

/* What a call works on; of rms_norm `sum` is NULL. */
typedef struct {
    ds_norm_input in;
    const ds_tensor *sum, *y;
    const void *weight;
    float *rstd;
} operands;

/* rms_norm(x, weight; eps) -> (y, rstd) */
DS_INLINE operands of_norm(const ds_call *call) {
    enum { X, WEIGHT, Y, RSTD };
    return (operands){
        .in = {.x = ds_arg_tensor(call, X, 0)},
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_arg_tensor(call, WEIGHT, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* add_rms_norm(x, residual, bias?, weight; eps) -> (sum, y, rstd) */
DS_INLINE operands of_add(const ds_call *call) {
    enum { X, RESIDUAL, BIAS, WEIGHT, SUM, Y, RSTD };
    return (operands){
        .in = {ds_arg_tensor(call, X, 0), ds_arg_tensor(call, RESIDUAL, 0), ds_optional(call, BIAS)},
        .sum = ds_arg_tensor(call, SUM, 0),
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_arg_tensor(call, WEIGHT, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* Adds the squares of a pair. */
DS_INLINE ds_vec2 add_squares(ds_vec2 sum, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec2 v = ds_norm_pair(s, i, t, add);
    return (ds_vec2){ds_vfma(v.a, v.a, sum.a), ds_vfma(v.b, v.b, sum.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec add_squares_first(int64_t n, ds_vec sum, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec v = ds_norm_first(n, s, i, t, add);
    return ds_vfma(v, v, sum);
}

/* Sum of squares of a row of `d`. */
DS_INLINE double sum_of_squares(ds_norm_row s, int64_t d, uint32_t t, int add) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        ds_vec2 sum = {{0}, {0}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) sum = add_squares(sum, s, i, t, add);
        for (; i < end; i += DS_LANES) sum.a = add_squares_first(end - i, sum.a, s, i, t, add);
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

/* Where a row's results go, and its factor. */
typedef struct {
    void *sum, *y;
    const void *weight;
    ds_vec rstd;
} result;

DS_INLINE void write_pair(const result *to, ds_norm_row s, int64_t i, uint32_t t, int add, int streams) {
    ds_vec2 v = ds_norm_pair(s, i, t, add), w = ds_load2(to->weight, i, t);
    if (add) ds_store2(to->sum, i, v, t, streams);
    ds_store2(to->y, i, (ds_vec2){v.a * to->rstd * w.a, v.b * to->rstd * w.b}, t, streams);
}

DS_INLINE void write_first(int64_t n, const result *to, ds_norm_row s, int64_t i, uint32_t t, int add) {
    ds_vec v = ds_norm_first(n, s, i, t, add);
    if (add) ds_store_first(n, to->sum, i, v, t);
    ds_store_first(n, to->y, i, v * to->rstd * ds_load_first(n, to->weight, i, t), t);
}

/* The results of the row `from`; returns the sum of squares of the row `next`, where there is one. */
DS_INLINE double write_row(const result *to, ds_norm_row from, ds_norm_row next, int64_t d, uint32_t t, int add,
                           int streams) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        ds_vec2 sum = {{0}, {0}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) {
            write_pair(to, from, i, t, add, streams);
            if (!next.x) continue;
            ds_norm_fetch(next, i, t, add);
            sum = add_squares(sum, next, i, t, add);
        }
        for (; i < end; i += DS_LANES) {
            write_first(end - i, to, from, i, t, add);
            if (next.x) sum.a = add_squares_first(end - i, sum.a, next, i, t, add);
        }
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

DS_INLINE void forward(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t, int add) {
    int64_t d = ds_row_length(o->in.x);
    int large = ds_streams(ds_elements(o->y), t);
    ds_norm_row from = ds_norm_row_of(&o->in, begin, t, add);
    double squares = sum_of_squares(from, d, t, add);
    for (int64_t row = begin; row < end; row++) {
        ds_norm_row next = row + 1 < end ? ds_norm_row_of(&o->in, row + 1, t, add) : (ds_norm_row){0};
        o->rstd[row] = (float)(1.0 / ds_sqrt(squares / (double)d + call->scalars[0].f));
        result to = {
            .sum = add ? ds_at(o->sum->data, ds_row_offset(o->sum, row), t) : 0,
            .y = ds_at(o->y->data, ds_row_offset(o->y, row), t),
            .weight = o->weight,
            .rstd = ds_splat(o->rstd[row]),
        };
        int streams = large && ds_aligned(to.y) && ds_aligned(to.sum);
        squares = write_row(&to, from, next, d, t, add, streams);
        from = next;
    }
    if (large) ds_fence();
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    operands o = of_norm(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t, 0));
}

static void run_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    operands o = of_add(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t, 1));
}

DS_KERNEL(ds_rms_norm, ds_norm_plan, run);
DS_KERNEL(ds_add_rms_norm, ds_norm_plan, run_add);
