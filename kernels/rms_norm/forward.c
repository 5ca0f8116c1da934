/* RMS normalisation over the last dimension, alone and of a sum with a residual, on a CPU.
 *
 * Limit: memory. rms_norm moves 2 elements of T an element (x in, y out), add_rms_norm 4 (x and
 * residual in, sum and y out). A row is needed twice, first for its sum of squares and then for its
 * results, so one loop computes the results of a row, by now in a cache, and the squares of the next
 * one, which comes from memory: memory is never idle. Large results go past the caches, else a store
 * would first read what it overwrites. About 4 flops an element are free.
 */
#include "ds_cpu_norm.h"

/* What a call works on. */
typedef struct {
    ds_norm_input in;
    const ds_tensor *y;
    const void *weight;
    float *rstd;
} operands;

/* rms_norm(x, weight; eps) -> (y, rstd) */
static operands of_norm(const ds_call *call) {
    enum { X, WEIGHT, Y, RSTD };
    return (operands){
        .in = {.x = ds_arg_tensor(call, X, 0)},
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_arg_tensor(call, WEIGHT, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* add_rms_norm(x, residual, bias?, weight; eps) -> (sum, y, rstd) */
static operands of_add(const ds_call *call) {
    enum { X, RESIDUAL, BIAS, WEIGHT, SUM, Y, RSTD };
    return (operands){
        .in = {.x = ds_arg_tensor(call, X, 0),
               .residual = ds_arg_tensor(call, RESIDUAL, 0),
               .sum = ds_arg_tensor(call, SUM, 0),
               .bias = ds_optional(call, BIAS)},
        .y = ds_arg_tensor(call, Y, 0),
        .weight = ds_arg_tensor(call, WEIGHT, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD, 0)->data,
    };
}

/* Where a row's results go, and its factor. */
typedef struct {
    void *y;
    const void *weight;
    ds_vec rstd;
    int streams;
} result;

/* A pair of the results of `from`, where there is such a row, and the squares of `next`, where there is.
 * What is read of both comes before what is written: rows are as far apart as pages often are, and a
 * load waits for a store before it whose address has the same last 12 bits. */
DS_INLINE ds_vec2 step(const result *to, const ds_norm_row *from, const ds_norm_row *next, ds_vec2 squares,
                       int64_t i, uint32_t t) {
    ds_vec2 y = {{0}, {0}};
    if (from->x) {
        ds_vec2 v = ds_norm_pair(from, i, t), w = ds_load2(to->weight, i, t);
        y = (ds_vec2){v.a * to->rstd * w.a, v.b * to->rstd * w.b};
    }
    if (next->x) {
        ds_norm_fetch(next, i, t);
        ds_vec2 v = ds_norm_pair(next, i, t);
        squares = (ds_vec2){ds_vfma(v.a, v.a, squares.a), ds_vfma(v.b, v.b, squares.b)};
    }
    if (from->x) ds_store2(to->y, i, y, t, to->streams);
    return squares;
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec step_first(int64_t n, const result *to, const ds_norm_row *from, const ds_norm_row *next,
                            ds_vec squares, int64_t i, uint32_t t) {
    if (from->x) {
        ds_vec v = ds_norm_first(n, from, i, t);
        ds_store_first(n, to->y, i, v * to->rstd * ds_load_first(n, to->weight, i, t), t);
    }
    if (!next->x) return squares;
    ds_vec v = ds_norm_first(n, next, i, t);
    return ds_vfma(v, v, squares);
}

/* The results of the row `from`; returns the sum of squares of the row `next`. */
DS_INLINE double row_of(const result *to, const ds_norm_row *from, const ds_norm_row *next, int64_t d, uint32_t t) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        ds_vec2 sum = {{0}, {0}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) sum = step(to, from, next, sum, i, t);
        for (; i < end; i += DS_LANES) sum.a = step_first(end - i, to, from, next, sum.a, i, t);
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

DS_INLINE void forward(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t) {
    int64_t d = ds_row_length(o->in.x);
    int large = ds_streams(ds_elements(o->y), t);
    _Alignas(64) char kept[DS_KEPT_BYTES];
    ds_norm_row from = {0}, next = ds_norm_row_of(&o->in, begin, kept, t, large);
    result to = {.weight = o->weight};
    for (int64_t row = begin; row <= end; row++) {
        double squares = row_of(&to, &from, &next, d, t);
        if (row == end) break;
        o->rstd[row] = (float)(1.0 / ds_sqrt(squares / (double)d + call->scalars[0].f));
        to.rstd = ds_splat(o->rstd[row]);
        to.y = ds_at(o->y->data, ds_row_offset(o->y, row), t);
        to.streams = large && ds_aligned(to.y);
        from = ds_norm_again(next);
        next = row + 1 < end ? ds_norm_row_of(&o->in, row + 1, kept, t, large) : (ds_norm_row){0};
    }
    if (large) ds_fence();
}

__attribute__((noinline)) static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end,
                                          int add) {
    (void)phase;
    operands o = add ? of_add(call) : of_norm(call);
    DS_WITH_FLOAT(t, o.in.x->dtype, forward(call, &o, begin, end, t));
}

DS_NORM_KERNELS(ds_rms_norm, ds_add_rms_norm, ds_norm_plan, run);
