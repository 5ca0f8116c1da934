/* Tensors of one shape and any strides, for CPU kernels: dimensions that lie one behind the other in
 * all of them become one, so that most calls are a few long rows.
 */
#ifndef DS_CPU_STRIDED_H
#define DS_CPU_STRIDED_H

#include "ds_cpu.h"

enum { DS_MAX_RANK = 8, DS_MAX_VIEWS = 4 };

typedef struct ds_views {
    int32_t ndim; /* at least 1 */
    int64_t shape[DS_MAX_RANK];
    int64_t strides[DS_MAX_VIEWS][DS_MAX_RANK]; /* in elements, a row a tensor */
} ds_views;

/* The first tensor of each of the `count` arguments, which all have one shape. */
static __attribute__((unused)) ds_views ds_collapse(const ds_call *call, uint32_t count) {
    ds_views v = {.ndim = 0};
    const ds_tensor *first = ds_arg_tensor(call, 0, 0);
    for (int32_t d = 0; d < first->ndim; d++) {
        int64_t extent = first->shape[d];
        if (extent == 1) continue;
        int merges = v.ndim > 0;
        for (uint32_t i = 0; i < count && merges; i++)
            merges = v.strides[i][v.ndim - 1] == ds_arg_tensor(call, i, 0)->strides[d] * extent;
        if (merges) v.shape[v.ndim - 1] *= extent;
        else v.shape[v.ndim++] = extent;
        for (uint32_t i = 0; i < count; i++) v.strides[i][v.ndim - 1] = ds_arg_tensor(call, i, 0)->strides[d];
    }
    if (v.ndim == 0) { /* one element */
        v.ndim = 1;
        v.shape[0] = 1;
        for (uint32_t i = 0; i < count; i++) v.strides[i][0] = 1;
    }
    return v;
}

/* Extent of the last dimension, a row. */
DS_INLINE int64_t ds_views_length(const ds_views *v) { return v->shape[v->ndim - 1]; }

/* Number of rows. */
DS_INLINE int64_t ds_views_rows(const ds_views *v) {
    int64_t n = 1;
    for (int32_t d = 0; d + 1 < v->ndim; d++) n *= v->shape[d];
    return n;
}

/* Elements from the first one of tensor `i` to its row `row`. */
DS_INLINE int64_t ds_views_offset(const ds_views *v, uint32_t i, int64_t row) {
    int64_t offset = 0;
    for (int32_t d = v->ndim - 2; d > 0; d--) {
        offset += row % v->shape[d] * v->strides[i][d];
        row /= v->shape[d];
    }
    return v->ndim > 1 ? offset + row * v->strides[i][0] : 0;
}

/* `n` elements of `bytes` from `from`, `from_stride` elements apart, to `to`, `to_stride` apart. */
DS_INLINE void ds_gather(void *to, int64_t to_stride, const void *from, int64_t from_stride, int64_t n,
                         int64_t bytes) {
#define DS_GATHER(type) \
    for (int64_t i = 0; i < n; i++) ((type *)to)[i * to_stride] = ((const type *)from)[i * from_stride]
    switch (bytes) {
    case 1: DS_GATHER(uint8_t); break;
    case 2: DS_GATHER(uint16_t); break;
    case 4: DS_GATHER(uint32_t); break;
    default: DS_GATHER(uint64_t); break;
    }
#undef DS_GATHER
}

#endif
