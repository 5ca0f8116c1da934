/* What the normalisations of rows share: the rows that they read, each x or, with `add`, a sum with a
 * residual and perhaps a bias. A sum is rounded as the tensor of sums will hold it, and is made each
 * time it is read: kept in memory, it could not go past the caches.
 */
#ifndef DS_CPU_NORM_H
#define DS_CPU_NORM_H

#include "ds_cpu_rows.h"

/* Where a call finds its rows; without `add`, `residual` and `bias` are NULL. */
typedef struct {
    const ds_tensor *x, *residual;
    const void *bias; /* none is NULL */
} ds_norm_input;

/* One of them. */
typedef struct {
    const void *x, *residual, *bias;
} ds_norm_row;

DS_INLINE ds_norm_row ds_norm_row_of(const ds_norm_input *in, int64_t row, uint32_t t, int add) {
    return (ds_norm_row){
        .x = ds_at(in->x->data, ds_row_offset(in->x, row), t),
        .residual = add ? ds_at(in->residual->data, ds_row_offset(in->residual, row), t) : 0,
        .bias = in->bias,
    };
}

/* A pair of the row. */
DS_INLINE ds_vec2 ds_norm_pair(ds_norm_row row, int64_t i, uint32_t t, int add) {
    ds_vec2 v = ds_load2(row.x, i, t);
    if (!add) return v;
    if (row.bias) {
        ds_vec2 b = ds_load2(row.bias, i, t);
        v = (ds_vec2){v.a + b.a, v.b + b.b};
    }
    ds_vec2 r = ds_load2(row.residual, i, t);
    return ds_round2((ds_vec2){v.a + r.a, v.b + r.b}, t);
}

/* The first `n` lanes of it, 0 in the others. */
DS_INLINE ds_vec ds_norm_first(int64_t n, ds_norm_row row, int64_t i, uint32_t t, int add) {
    ds_vec v = ds_load_first(n, row.x, i, t);
    if (!add) return v;
    if (row.bias) v += ds_load_first(n, row.bias, i, t);
    return ds_round(v + ds_load_first(n, row.residual, i, t), t);
}

/* Fetches what is read of the row soon. */
DS_INLINE void ds_norm_fetch(ds_norm_row row, int64_t i, uint32_t t, int add) {
    ds_fetch_row(row.x, i, t);
    if (add) ds_fetch_row(row.residual, i, t);
}

/* An item is a row of argument 0. */
DS_INLINE void ds_norm_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, 0, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_row_grain(ds_row_length(x));
}

#endif
