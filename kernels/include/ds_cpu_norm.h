/* What the normalisations of rows share: the rows that they read, each x or its sum with a residual
 * and perhaps a bias, rounded as the tensor of sums holds it.
 *
 * A row is needed twice, first for its moments and then for its results. Its sum is made when it is
 * first needed, and goes past the caches; what the second look reads is a copy of it on the stack.
 * Rows too long for that are summed again.
 */
#ifndef DS_CPU_NORM_H
#define DS_CPU_NORM_H

#include "ds_cpu_rows.h"

enum { DS_KEPT_BYTES = 64 * 1024 /* of a row's sum; any stack has room for them */ };

/* Where a call finds its rows and leaves their sums; where there is no residual, neither are these. */
typedef struct {
    const ds_tensor *x, *residual, *sum;
    const void *bias; /* none is NULL */
} ds_norm_input;

/* One row, as it is first read. Nothing is left of its sum where `sum` or `kept` is NULL. */
typedef struct {
    const void *x, *residual, *bias;
    void *sum, *kept;
    int streams;
} ds_norm_row;

/* `large` is whether its sum should go past the caches. */
DS_INLINE ds_norm_row ds_norm_row_of(const ds_norm_input *in, int64_t row, void *kept, uint32_t t, int large) {
    ds_norm_row r = {.x = ds_at(in->x->data, ds_row_offset(in->x, row), t)};
    if (!in->residual) return r;
    r.residual = ds_at(in->residual->data, ds_row_offset(in->residual, row), t);
    r.bias = in->bias;
    r.sum = ds_at(in->sum->data, ds_row_offset(in->sum, row), t);
    r.kept = ds_row_length(in->x) * ds_size(t) <= DS_KEPT_BYTES ? kept : 0;
    r.streams = large && ds_aligned(r.sum);
    return r;
}

/* The same row when it is read again. */
DS_INLINE ds_norm_row ds_norm_again(ds_norm_row row) {
    if (row.kept) return (ds_norm_row){.x = row.kept};
    row.sum = 0;
    return row;
}

/* A pair of the row. */
DS_INLINE ds_vec2 ds_norm_pair(const ds_norm_row *row, int64_t i, uint32_t t) {
    ds_vec2 v = ds_load2(row->x, i, t);
    if (!row->residual) return v;
    if (row->bias) {
        ds_vec2 b = ds_load2(row->bias, i, t);
        v = (ds_vec2){v.a + b.a, v.b + b.b};
    }
    ds_vec2 r = ds_load2(row->residual, i, t);
    return ds_store_round2(row->sum, row->kept, i, (ds_vec2){v.a + r.a, v.b + r.b}, t, row->streams);
}

/* The first `n` lanes of it, 0 in the others. */
DS_INLINE ds_vec ds_norm_first(int64_t n, const ds_norm_row *row, int64_t i, uint32_t t) {
    ds_vec v = ds_load_first(n, row->x, i, t);
    if (!row->residual) return v;
    if (row->bias) v += ds_load_first(n, row->bias, i, t);
    v += ds_load_first(n, row->residual, i, t);
    if (row->sum) ds_store_first(n, row->sum, i, v, t);
    if (row->kept) ds_store_first(n, row->kept, i, v, t);
    return ds_round(v, t);
}

/* Fetches what is read of the row soon. */
DS_INLINE void ds_norm_fetch(const ds_norm_row *row, int64_t i, uint32_t t) {
    ds_fetch_row(row->x, i, t);
    if (row->residual) ds_fetch_row(row->residual, i, t);
}

/* An item is a row of argument 0. */
DS_INLINE void ds_norm_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, 0, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_row_grain(ds_row_length(x));
}

/* Two kernels of one body, alone and behind a residual connection: what tells them apart is asked at run
 * time, which memory hides. `body(call, phase, begin, end, add)` */
#define DS_NORM_KERNELS(alone, added, plan, body)                                                     \
    static void run_alone(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {          \
        body(call, phase, begin, end, 0);                                                             \
    }                                                                                                 \
    static void run_added(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {          \
        body(call, phase, begin, end, 1);                                                             \
    }                                                                                                 \
    DS_KERNEL(alone, plan, run_alone);                                                                \
    DS_KERNEL(added, plan, run_added)

#endif
