/* Gradients of RMS normalisation, alone and behind a residual connection, on a CPU.
 *
 *   dx      = rstd * (weight * dy - x * rstd^2 * mean(weight * dy * x)) + dsum
 *   dweight = sum over the rows of dy * x * rstd
 *
 * Limit: memory. rms_norm_backward moves 3 elements an element (dy and x in, dx out), with dsum 4. As
 * forward, one loop computes the results of a row and the mean of the next one. About 10 flops an
 * element are free.
 */
#include "ds_cpu_norm.h"

enum { SUMS = 1 /* of columns: dweight */ };

/* What a row of gradients is computed from. */
typedef struct {
    const void *dy, *x, *dsum; /* no dsum is NULL */
} source;

/* What a call works on; `dsum` is NULL where there is none. */
typedef struct {
    const ds_tensor *dy, *dsum, *x, *dx;
    const void *weight;
    const float *rstd;
    void *dweight;
} operands;

/* rms_norm_backward(dy, x, weight, rstd) -> (dx, dweight), and
 * add_rms_norm_backward(dy, dsum, sum, weight, rstd) -> (dx, dweight) */
DS_INLINE operands operands_of(const ds_call *call, int add) {
    enum { DY, X, WEIGHT, RSTD, DX, DWEIGHT };
    uint32_t more = add ? 1 : 0;
    return (operands){
        .dy = ds_arg_tensor(call, DY, 0),
        .dsum = add ? ds_arg_tensor(call, 1, 0) : 0,
        .x = ds_arg_tensor(call, X + more, 0),
        .weight = ds_arg_tensor(call, WEIGHT + more, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD + more, 0)->data,
        .dx = ds_arg_tensor(call, DX + more, 0),
        .dweight = ds_arg_tensor(call, DWEIGHT + more, 0)->data,
    };
}

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *dy = ds_arg_tensor(call, 0, 0);
    ds_plan_shares(out, ds_rows(dy), ds_row_length(dy), SUMS);
}

DS_INLINE source source_of(const operands *o, int64_t row, uint32_t t) {
    return (source){
        .dy = ds_at(o->dy->data, ds_row_offset(o->dy, row), t),
        .x = ds_at(o->x->data, ds_row_offset(o->x, row), t),
        .dsum = o->dsum ? ds_at(o->dsum->data, ds_row_offset(o->dsum, row), t) : 0,
    };
}

/* Adds dy[i] * weight[i] * x[i] of a pair. */
DS_INLINE ds_vec2 add_products(ds_vec2 sum, source s, ds_vec2 w, int64_t i, uint32_t t) {
    ds_vec2 g = ds_load2(s.dy, i, t), v = ds_load2(s.x, i, t);
    return (ds_vec2){ds_vfma(g.a * w.a, v.a, sum.a), ds_vfma(g.b * w.b, v.b, sum.b)};
}

/* The same of the first `n` lanes. */
DS_INLINE ds_vec add_products_first(int64_t n, ds_vec sum, source s, ds_vec w, int64_t i, uint32_t t) {
    return ds_vfma(ds_load_first(n, s.dy, i, t) * w, ds_load_first(n, s.x, i, t), sum);
}

/* Where the gradients of a row go, and its factors. */
typedef struct {
    void *dx;
    float *dweight; /* its share */
    ds_vec rstd, slope;
} gradient;

DS_INLINE void write_pair(const gradient *to, source s, ds_vec2 w, int64_t i, uint32_t t, int streams) {
    ds_vec2 g = ds_load2(s.dy, i, t), v = ds_load2(s.x, i, t);
    g = (ds_vec2){g.a * to->rstd, g.b * to->rstd};
    ds_add_product2(to->dweight, i, g, v);
    ds_vec2 dx = {ds_vfma(g.a, w.a, -(v.a * to->slope)), ds_vfma(g.b, w.b, -(v.b * to->slope))};
    if (s.dsum) {
        ds_vec2 more = ds_load2(s.dsum, i, t);
        dx = (ds_vec2){dx.a + more.a, dx.b + more.b};
    }
    ds_store2(to->dx, i, dx, t, streams);
}

DS_INLINE void write_first(int64_t n, const gradient *to, source s, ds_vec w, int64_t i, uint32_t t) {
    ds_vec g = ds_load_first(n, s.dy, i, t) * to->rstd, v = ds_load_first(n, s.x, i, t);
    ds_add_first(n, to->dweight, i, g * v);
    ds_vec dx = ds_vfma(g, w, -(v * to->slope));
    if (s.dsum) dx += ds_load_first(n, s.dsum, i, t);
    ds_store_first(n, to->dx, i, dx, t);
}

/* The gradients of the row `from`, where there is one; returns the sum of dy[i] * weight[i] * x[i] of the
 * row `next`, where there is one. That is read first: rows are as far apart as pages often are, and a
 * load waits for a store before it whose address has the same last 12 bits. */
DS_INLINE double row_of(const gradient *to, source from, source next, const void *weight, int64_t d, uint32_t t,
                        int streams) {
    double total = 0;
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        ds_vec2 sum = {{0}, {0}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) {
            ds_vec2 w = ds_load2(weight, i, t);
            if (next.x) {
                ds_fetch_pair(next.dy, i, t);
                ds_fetch_pair(next.x, i, t);
                sum = add_products(sum, next, w, i, t);
            }
            if (!from.x) continue;
            if (from.dsum) ds_fetch_pair(from.dsum, i, t);
            write_pair(to, from, w, i, t, streams);
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = end - i;
            ds_vec w = ds_load_first(n, weight, i, t);
            if (next.x) sum.a = add_products_first(n, sum.a, next, w, i, t);
            if (from.x) write_first(n, to, from, w, i, t);
        }
        total += ds_vsum(sum.a + sum.b);
    }
    return total;
}

DS_INLINE void backward_rows(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t) {
    int64_t rows = ds_rows(o->dy), d = ds_row_length(o->dy);
    int large = ds_streams(ds_elements(o->dx), t);
    source from = {0}, next = source_of(o, begin, t);
    gradient to = {.dx = 0};
    for (int64_t row = begin; row <= end; row++) {
        double sum = row_of(&to, from, next, o->weight, d, t, large && ds_aligned(to.dx));
        if (row == end) break;
        double rstd = o->rstd[row], mean = sum / (double)d;
        to.dx = ds_at(o->dx->data, ds_row_offset(o->dx, row), t);
        to.dweight = ds_share(call, row, rows, d, SUMS);
        to.rstd = ds_splat(o->rstd[row]);
        to.slope = ds_splat((float)(rstd * rstd * rstd * mean));
        from = next;
        next = row + 1 < end ? source_of(o, row + 1, t) : (source){0};
    }
    if (large) ds_fence();
}

DS_INLINE void backward(const ds_call *call, const operands *o, uint32_t phase, int64_t begin, int64_t end,
                        uint32_t t) {
    if (phase == 0) backward_rows(call, o, begin, end, t);
    else ds_sum_shares(call, ds_rows(o->dy), ds_row_length(o->dy), SUMS, 0, o->dweight, begin, end, t);
}

__attribute__((noinline)) static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end,
                                          int add) {
    operands o = operands_of(call, add);
    DS_WITH_FLOAT(t, o.dy->dtype, backward(call, &o, phase, begin, end, t));
}

DS_NORM_KERNELS(ds_rms_norm_backward, ds_add_rms_norm_backward, plan, run);
