/* Slots for the kernels of this folder: rows of y that tokens name, and who names a row. */
#ifndef DS_MOE_H
#define DS_MOE_H

#include "ds_cpu_copy.h"
#include "ds_cpu_rows.h"

enum {
    MOE_CHUNK_BYTES = 64 * 1024,
    MOE_MOST_PLACES = 64, /* that a token has; kernel.json says so, too */
};

/* Rows of `t` in a chunk. */
DS_INLINE int64_t moe_grain(const ds_tensor *t) {
    return ds_max(1, MOE_CHUNK_BYTES / ds_max(1, ds_row_length(t) * ds_size(t->dtype)));
}

/* Row `slot` of `t`, NULL where it has no such row. */
DS_INLINE char *moe_row(const ds_tensor *t, int64_t slot) {
    if (slot < 0 || slot >= t->shape[0]) return 0;
    return ds_at(t->data, slot * t->strides[0], t->dtype);
}

/* Three phases of who writes rows of `y` by slots. 0, one item: the workspace becomes a table of who has
 * a row, 1 + the number of its place, the last one that names it; 0 for nobody. 1, an item is a row: what
 * nobody has becomes zeros. 2, an item is a token. */
DS_INLINE void moe_plan_owners(ds_plan *out, const ds_tensor *y, const ds_tensor *x) {
    out->phases = 3;
    out->phase[0].items = out->phase[0].grain = 1;
    out->phase[1].items = y->shape[0];
    out->phase[1].grain = moe_grain(y);
    out->phase[2].items = x->shape[0];
    out->phase[2].grain = moe_grain(x);
    out->workspace_bytes = y->shape[0] * 8;
}

static void moe_find_owners(const ds_call *call, const ds_tensor *y, const ds_tensor *slots) {
    int64_t *owners = call->workspace, rows = y->shape[0], places = ds_elements(slots);
    const int32_t *slot = slots->data;
    __builtin_memset(owners, 0, (size_t)rows * 8);
    for (int64_t i = 0; i < places; i++)
        if (slot[i] >= 0 && slot[i] < rows) owners[slot[i]] = i + 1;
}

/* Zeros in the rows from `begin` to `end` that nobody has. */
static void moe_clear_rows(const ds_call *call, const ds_tensor *y, int64_t begin, int64_t end, int streams) {
    const int64_t *owners = call->workspace, width = sizeof(ds_vec);
    int64_t bytes = ds_row_length(y) * ds_size(y->dtype);
    for (int64_t row = begin; row < end; row++) {
        if (owners[row]) continue;
        char *to = moe_row(y, row);
        int64_t i = 0;
        if (streams && ds_aligned(to))
            for (; i + width <= bytes; i += width) ds_put(to + i, (ds_vec_u32){0}, 1);
        __builtin_memset(to + i, 0, (size_t)(bytes - i));
    }
}

/* The weights of a token's places, divided by their sum where that is asked for and positive; gives what
 * they were divided by, 0 where they are as they were. */
DS_INLINE float weights_of(float *to, const float *weights, int64_t places, int normalize) {
    float sum = 0;
    for (int64_t k = 0; k < places; k++) sum += weights ? weights[k] : 1;
    float by = normalize && sum > 0 ? sum : 0;
    for (int64_t k = 0; k < places; k++) to[k] = (weights ? weights[k] : 1) / (by > 0 ? by : 1);
    return by;
}

#endif
