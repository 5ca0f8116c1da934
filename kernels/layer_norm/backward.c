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
#include "ds_cpu_rows.h"

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

DS_INLINE source source_of(const operands *o, int64_t row, uint32_t t, int add) {
    return (source){
        .dy = ds_at(o->dy->data, ds_row_offset(o->dy, row), t),
        .x = ds_at(o->x->data, ds_row_offset(o->x, row), t),
        .dsum = add ? ds_at(o->dsum->data, ds_row_offset(o->dsum, row), t) : 0,
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

/* The sums of a row of `d`. */
DS_INLINE sums sums_of(const source *s, const void *weight, int64_t d, uint32_t t) {
    sums total = {0, 0};
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        block_sums block = {.plain = {{0}, {0}}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) add_pair(&block, s, weight, i, t);
        for (; i < end; i += DS_LANES) add_first(ds_min(DS_LANES, end - i), &block, s, weight, i, t);
        add_block(&total, &block);
    }
    return total;
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
    ds_add2(to->dweight, i, (ds_vec2){dy.a * n.a, dy.b * n.b});
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

/* The gradients of the row `from`; returns the sums of the row `next`, where there is one. */
DS_INLINE sums write_row(const gradient *to, const source *from, const source *next, const void *weight,
                         int64_t d, uint32_t t, int streams) {
    sums total = {0, 0};
    for (int64_t i = 0; i < d;) {
        int64_t end = ds_min(i + DS_BLOCK, d);
        block_sums block = {.plain = {{0}, {0}}};
        for (; i + DS_PAIR <= end; i += DS_PAIR) {
            write_pair(to, from, weight, i, t, streams);
            if (!next->x) continue;
            ds_fetch_row(next->dy, i, t);
            ds_fetch_row(next->x, i, t);
            if (next->dsum) ds_fetch_row(next->dsum, i, t);
            add_pair(&block, next, weight, i, t);
        }
        for (; i < end; i += DS_LANES) {
            int64_t n = ds_min(DS_LANES, end - i);
            write_first(n, to, from, weight, i, t);
            if (next->x) add_first(n, &block, next, weight, i, t);
        }
        add_block(&total, &block);
    }
    return total;
}

DS_INLINE void backward_rows(const ds_call *call, const operands *o, int64_t begin, int64_t end, uint32_t t,
                             int add) {
    int64_t rows = ds_rows(o->dy), d = ds_row_length(o->dy);
    int large = ds_streams(ds_elements(o->dx), t);
    source from = source_of(o, begin, t, add);
    sums total = sums_of(&from, o->weight, d, t);
    for (int64_t row = begin; row < end; row++) {
        source next = row + 1 < end ? source_of(o, row + 1, t, add) : (source){0};
        double rstd = o->rstd[row];
        float *share = ds_share(call, row, rows, d, SUMS);
        gradient to = {
            .dx = ds_at(o->dx->data, ds_row_offset(o->dx, row), t),
            .dweight = share,
            .dbias = share + d,
            .plain = ds_splat((float)(total.plain / (double)d * rstd)),
            .normal = ds_splat((float)(total.normal / (double)d * rstd)),
        };
        int streams = large && ds_aligned(to.dx);
        total = write_row(&to, &from, &next, o->weight, d, t, streams);
        from = next;
    }
    if (large) ds_fence();
}

DS_INLINE void backward(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t t, int add) {
    operands o = operands_of(call, add);
    if (phase == 0) {
        backward_rows(call, &o, begin, end, t, add);
        return;
    }
    int64_t rows = ds_rows(o.dy), d = ds_row_length(o.dy);
    ds_sum_shares(call, rows, d, SUMS, 0, o.dweight, begin, end, t);
    ds_sum_shares(call, rows, d, SUMS, 1, o.dbias, begin, end, t);
}

/* One body for both: what tells them apart is asked at run time, which memory hides. */
__attribute__((noinline)) static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end,
                                              int add) {
    DS_WITH_FLOAT(t, ds_arg_tensor(call, 0, 0)->dtype, backward(call, phase, begin, end, t, add));
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    run_any(call, phase, begin, end, 0);
}

static void run_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    run_any(call, phase, begin, end, 1);
}

DS_KERNEL(ds_layer_norm_backward, plan, run);
DS_KERNEL(ds_add_layer_norm_backward, plan, run_add);
