/* Gradients of layer normalisation, alone and behind a residual connection, on a CPU.
 *
 *   n       = (x - mean) * rstd
 *   dx      = rstd * (weight * dy - mean(weight * dy) - n * mean(weight * dy * n)) + dsum
 *   dweight = sum over the rows of dy * n
 *   dbias   = sum over the rows of dy
 *
 * Limit: memory. layer_norm_backward moves 3 elements an element (dy and x in, dx out), with dsum 4.
 * As forward, one loop computes the results of a row and the two means of the next one.
 */
#include "ds_cpu_norm.h"

enum { SUMS = 2 /* of columns: dweight, dbias */ };

/* What a row of gradients is computed from. */
typedef struct {
    const void *dy, *x, *dsum; /* no dsum is NULL */
    ds_vec mean, rstd;
} source;

/* What a call works on; `dsum` and `weight` are NULL where there is none. */
typedef struct {
    const ds_tensor *dy, *dsum, *x, *dx;
    const void *weight;
    const float *mean, *rstd;
    void *dweight, *dbias;
} operands;

/* layer_norm_backward(dy, x, weight?, mean, rstd) -> (dx, dweight, dbias), and
 * add_layer_norm_backward(dy, dsum, sum, weight?, mean, rstd) -> (dx, dweight, dbias) */
DS_INLINE operands operands_of(const ds_call *call, int add) {
    enum { DY, X, WEIGHT, MEAN, RSTD, DX, DWEIGHT, DBIAS };
    uint32_t more = add ? 1 : 0;
    return (operands){
        .dy = ds_arg_tensor(call, DY, 0),
        .dsum = add ? ds_arg_tensor(call, 1, 0) : 0,
        .x = ds_arg_tensor(call, X + more, 0),
        .weight = ds_optional(call, WEIGHT + more),
        .mean = ds_arg_tensor(call, MEAN + more, 0)->data,
        .rstd = ds_arg_tensor(call, RSTD + more, 0)->data,
        .dx = ds_arg_tensor(call, DX + more, 0),
        .dweight = ds_arg_tensor(call, DWEIGHT + more, 0)->data,
        .dbias = ds_arg_tensor(call, DBIAS + more, 0)->data,
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
        .mean = ds_splat(o->mean[row]),
        .rstd = ds_splat(o->rstd[row]),
    };
}

/* Sums of weight * dy and of weight * dy * n over a row. */
typedef struct {
    double plain, normal;
} sums;

/* The same of a block. */
typedef struct {
    ds_vec2 plain, normal;
} block_sums;

DS_INLINE ds_vec2 weighted(ds_vec2 v, const void *weight, int64_t i, uint32_t t) {
    if (!weight) return v;
    ds_vec2 w = ds_load2(weight, i, t);
    return (ds_vec2){v.a * w.a, v.b * w.b};
}

DS_INLINE ds_vec weighted_first(int64_t n, ds_vec v, const void *weight, int64_t i, uint32_t t) {
    return weight ? v * ds_load_first(n, weight, i, t) : v;
}

DS_INLINE void add_pair(block_sums *to, const source *s, const void *weight, int64_t i, uint32_t t) {
    ds_vec2 g = weighted(ds_load2(s->dy, i, t), weight, i, t), v = ds_load2(s->x, i, t);
    to->plain = (ds_vec2){to->plain.a + g.a, to->plain.b + g.b};
    to->normal = (ds_vec2){ds_vfma(g.a, (v.a - s->mean) * s->rstd, to->normal.a),
                           ds_vfma(g.b, (v.b - s->mean) * s->rstd, to->normal.b)};
}

/* dy is 0 in the other lanes, and so is what they add. */
DS_INLINE void add_first(int64_t n, block_sums *to, const source *s, const void *weight, int64_t i, uint32_t t) {
    ds_vec g = weighted_first(n, ds_load_first(n, s->dy, i, t), weight, i, t);
    ds_vec v = ds_keep_first(n, (ds_load_first(n, s->x, i, t) - s->mean) * s->rstd);
    to->plain.a += g;
    to->normal.a = ds_vfma(g, v, to->normal.a);
}

DS_INLINE void add_block(sums *to, const block_sums *block) {
    to->plain += ds_vsum(block->plain.a + block->plain.b);
    to->normal += ds_vsum(block->normal.a + block->normal.b);
}

/* Where the gradients of a row go, and its factors. */
typedef struct {
    void *dx;
    float *dweight, *dbias; /* its shares */
    ds_vec plain, normal;   /* the two means times rstd */
} gradient;

/* dx of dy * weight and n, but for dsum */
DS_INLINE ds_vec slope(const gradient *to, const source *s, ds_vec g, ds_vec n) {
    return ds_vfma(g, s->rstd, -ds_vfma(n, to->normal, to->plain));
}

DS_INLINE void write_pair(const gradient *to, const source *s, const void *weight, int64_t i, uint32_t t,
                          int streams) {
    ds_vec2 dy = ds_load2(s->dy, i, t), v = ds_load2(s->x, i, t);
    ds_vec2 n = {(v.a - s->mean) * s->rstd, (v.b - s->mean) * s->rstd};
    ds_add2(to->dbias, i, dy);
    ds_add_product2(to->dweight, i, dy, n);
    ds_vec2 g = weighted(dy, weight, i, t);
    ds_vec2 dx = {slope(to, s, g.a, n.a), slope(to, s, g.b, n.b)};
    if (s->dsum) {
        ds_vec2 more = ds_load2(s->dsum, i, t);
        dx = (ds_vec2){dx.a + more.a, dx.b + more.b};
    }
    ds_store2(to->dx, i, dx, t, streams);
}

DS_INLINE void write_first(int64_t lanes, const gradient *to, const source *s, const void *weight, int64_t i,
                           uint32_t t) {
    ds_vec dy = ds_load_first(lanes, s->dy, i, t);
    ds_vec n = (ds_load_first(lanes, s->x, i, t) - s->mean) * s->rstd;
    ds_add_first(lanes, to->dbias, i, dy);
    ds_add_first(lanes, to->dweight, i, dy * n);
    ds_vec dx = slope(to, s, weighted_first(lanes, dy, weight, i, t), n);
    if (s->dsum) dx += ds_load_first(lanes, s->dsum, i, t);
    ds_store_first(lanes, to->dx, i, dx, t);
}

/* The gradients of the row `from`, where there is one; returns the sums of the row `next`, where there is
 * one. That is read first: rows are as far apart as pages often are, and a load waits for a store
 * before it whose address has the same last 12 bits. */
DS_INLINE sums row_of(const gradient *to, const source *from, const source *next, const void *weight, int64_t d,
                      uint32_t t, int streams) {
    sums total = {0, 0};
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        block_sums block = {.plain = {{0}, {0}}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) {
            if (next->x) {
                ds_fetch_pair(next->dy, i, t);
                ds_fetch_pair(next->x, i, t);
                add_pair(&block, next, weight, i, t);
            }
            if (!from->x) continue;
            if (from->dsum) ds_fetch_pair(from->dsum, i, t);
            write_pair(to, from, weight, i, t, streams);
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = ds_min(DS_LANES, end - i);
            if (next->x) add_first(n, &block, next, weight, i, t);
            if (from->x) write_first(n, to, from, weight, i, t);
        }
        add_block(&total, &block);
    }
    return total;
}

DS_INLINE void backward_rows(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t) {
    int64_t rows = ds_rows(o->dy), d = ds_row_length(o->dy);
    int large = ds_streams(ds_elements(o->dx), t);
    source from = {0}, next = source_of(o, begin, t);
    gradient to = {.dx = 0};
    for (int64_t row = begin; row <= end; row++) {
        sums total = row_of(&to, &from, &next, o->weight, d, t, large && ds_aligned(to.dx));
        if (row == end) break;
        double rstd = o->rstd[row];
        to.dx = ds_at(o->dx->data, ds_row_offset(o->dx, row), t);
        to.dweight = ds_share(call, row, rows, d, SUMS);
        to.dbias = to.dweight + d;
        to.plain = ds_splat((float)(total.plain / (double)d * rstd));
        to.normal = ds_splat((float)(total.normal / (double)d * rstd));
        from = next;
        next = row + 1 < end ? source_of(o, row + 1, t) : (source){0};
    }
    if (large) ds_fence();
}

DS_INLINE void backward(const ds_call *call, const operands *o, uint32_t phase, int64_t begin, int64_t end,
                        uint32_t t) {
    if (phase == 0) {
        backward_rows(call, o, begin, end, t);
        return;
    }
    int64_t rows = ds_rows(o->dy), d = ds_row_length(o->dy);
    ds_sum_shares(call, rows, d, SUMS, 0, o->dweight, begin, end, t);
    ds_sum_shares(call, rows, d, SUMS, 1, o->dbias, begin, end, t);
}

__attribute__((noinline)) static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end,
                                          int add) {
    operands o = operands_of(call, add);
    DS_WITH_FLOAT(t, o.dy->dtype, backward(call, &o, phase, begin, end, t));
}

DS_NORM_KERNELS(ds_layer_norm_backward, ds_add_layer_norm_backward, plan, run);
