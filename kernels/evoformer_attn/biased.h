/* What attention of the Evoformer and its gradient share, on a CPU: heads of tensors with two batch dimensions.
 */
#ifndef DS_BIASED_H
#define DS_BIASED_H

#include "ds_cpu_biased.h"

/* [B, N, tokens, H, D]. */
typedef struct extents {
    int64_t batch, n, queries, keys, heads, d;
} extents;

static inline extents extents_of(const ds_call *call, uint32_t q, uint32_t k) {
    const int64_t *s = ds_arg_tensor(call, q, 0)->shape;
    return (extents){s[0], s[1], s[2], ds_arg_tensor(call, k, 0)->shape[2], s[3], s[4]};
}

/* A head of sequence `n` of batch `b`. */
typedef struct place {
    int64_t b, n, h;
} place;

static inline ds_head head_of(const ds_call *call, uint32_t arg, place at) {
    const ds_tensor *t = ds_arg_tensor(call, arg, 0);
    void *data = ds_at(t->data, at.b * t->strides[0] + at.n * t->strides[1] + at.h * t->strides[3], t->dtype);
    return (ds_head){data, t->strides[2], t->dtype};
}

/* Queries, keys and values are arguments `q` and those behind it, biases `bias` and the one behind it. */
static inline ds_attention attention_of(const ds_call *call, const extents *e, uint32_t q, uint32_t bias, place at) {
    ds_attention of = {
        .q = head_of(call, q, at),
        .k = head_of(call, q + 1, at),
        .v = head_of(call, q + 2, at),
        .bias = {.query = e->keys, .dtype = ds_arg_tensor(call, q, 0)->dtype},
        .d = e->d,
        .scale = (float)call->scalars[0].f,
    };
    const void *keys = ds_optional(call, bias), *pairs = ds_optional(call, bias + 1);
    if (keys) of.bias.keys = ds_at(keys, (at.b * e->n + at.n) * e->keys, of.bias.dtype);
    if (pairs) of.bias.pairs = ds_at(pairs, (at.b * e->heads + at.h) * e->queries * e->keys, of.bias.dtype);
    return of;
}

/* Where the logarithms of a head begin. */
static inline int64_t first_lse(const extents *e, place at) { return ((at.b * e->n + at.n) * e->heads + at.h) * e->queries; }

#endif
