/* What block-sparse attention and its gradient share, on a CPU: which blocks see each other.
 */
#ifndef DS_BLOCKS_H
#define DS_BLOCKS_H

#include "ds_cpu_biased.h"

/* Tensors are [B, S, H, D], the layout [H, M, M]. */
typedef struct extents {
    int64_t batch, tokens, heads, d;
    int64_t blocks, block; /* of a sequence, one at least; tokens of one, but for the last ones */
    int causal;
} extents;

static inline extents extents_of(const ds_call *call, uint32_t q, uint32_t layout) {
    const int64_t *s = ds_arg_tensor(call, q, 0)->shape;
    const int64_t blocks = ds_max(1, ds_arg_tensor(call, layout, 0)->shape[1]);
    return (extents){s[0], s[1], s[2], s[3], blocks, ds_div_up(s[1], blocks), call->attributes[0].i != 0};
}

/* Tokens of a block. */
typedef struct tokens {
    int64_t first, n;
} tokens;

static inline tokens tokens_of(const extents *e, int64_t block) {
    const int64_t first = block * e->block;
    return (tokens){first, ds_max(0, ds_min(e->block, e->tokens - first))};
}

static inline ds_head head_of(const ds_call *call, uint32_t arg, int64_t b, int64_t h) {
    const ds_tensor *t = ds_arg_tensor(call, arg, 0);
    return (ds_head){ds_at(t->data, b * t->strides[0] + h * t->strides[2], t->dtype), t->strides[1], t->dtype};
}

/* Whether block `row` of queries of head `h` sees block `column` of keys. */
static inline int is_seen(const extents *e, const ds_tensor *layout, int64_t h, int64_t row, int64_t column) {
    if (ds_row_length(layout) == 0 || (e->causal && column > row)) return 0;
    const int64_t i = (h * e->blocks + row) * e->blocks + column;
    return ds_size(layout->dtype) == 1 ? ((const uint8_t *)layout->data)[i] != 0 : ds_index_at(layout, i) != 0;
}

/* Queries, keys and values are arguments `q` and those behind it, masks `mask` and the one behind it. Only
 * blocks on the diagonal have keys to hide from a query that is not before them. */
static inline ds_attention attention_of(const ds_call *call, const extents *e, uint32_t q, uint32_t mask, int64_t b,
                                        int64_t h) {
    const float *keys = ds_optional(call, mask), *pairs = ds_optional(call, mask + 1);
    return (ds_attention){
        .q = head_of(call, q, b, h),
        .k = head_of(call, q + 1, b, h),
        .v = head_of(call, q + 2, b, h),
        .bias = {keys ? keys + b * e->tokens : 0, pairs, e->tokens, DS_F32},
        .d = e->d,
        .scale = (float)call->scalars[0].f,
        .causal = e->causal,
    };
}

#endif
