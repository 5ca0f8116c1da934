/* Rotary position embedding in both layouts, on a CPU.
 *
 * Limit: memory. An element is read and written once; the rows of the tables serve every head of a
 * token and stay in a cache. Six operations for two elements are free.
 */
#include "ds_cpu_rope.h"

/* rope(x, cos, sin, positions, offset, inverse, interleaved) -> y; an item is a token. */
enum { X, COS, SIN, POSITIONS, Y };
enum { OFFSET, INVERSE };
enum { INTERLEAVED };

static void plan(const ds_call *call, ds_plan *out) {
    const int64_t *shape = ds_arg_tensor(call, X, 0)->shape;
    out->phases = 1;
    out->phase[0].items = shape[0] * shape[1];
    out->phase[0].grain = ds_max(1, DS_CHUNK_ELEMENTS / ds_max(1, shape[2] * shape[3]));
}

/* Where the token `index` of sequence `batch` stands. */
static int64_t position_of(const ds_call *call, int64_t batch, int64_t index) {
    int64_t offset = call->scalars[OFFSET].i;
    if (!call->args[POSITIONS].count) return index + offset;
    const ds_tensor *positions = ds_arg_tensor(call, POSITIONS, 0);
    return offset + ds_index_at(positions, batch * positions->strides[0] + index * positions->strides[1]);
}

/* Elements to a head, which for so short a row is not worth a division. */
DS_INLINE int64_t offset_of(const ds_tensor *x, int64_t batch, int64_t index, int64_t head) {
    return batch * x->strides[0] + index * x->strides[1] + head * x->strides[2];
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    const ds_tensor *cos = ds_arg_tensor(call, COS, 0), *sin = ds_arg_tensor(call, SIN, 0);
    int64_t tokens = x->shape[1], heads = x->shape[2], d = x->shape[3], width = cos->shape[1];
    int interleaved = call->attributes[INTERLEAVED].i != 0;
    int large = ds_streams(ds_elements(y), t) && x->data != y->data;
    ds_angles by = {.points = ds_min(width, d / 2), .sign = call->scalars[INVERSE].i ? -1 : 1};
    for (int64_t token = begin; token < end; token++) {
        int64_t batch = token / tokens, index = token % tokens, position = position_of(call, batch, index);
        int is_told = position >= 0 && position < cos->shape[0];
        by.cos = is_told ? (const float *)cos->data + position * width : 0;
        by.sin = is_told ? (const float *)sin->data + position * width : 0;
        for (int64_t head = 0; head < heads; head++) {
            const void *from = ds_at(x->data, offset_of(x, batch, index, head), t);
            void *to = ds_at(y->data, offset_of(y, batch, index, head), t);
            ds_rope_turn_head(to, from, &by, d, t, interleaved, large && ds_aligned(to));
        }
    }
    if (large) ds_fence();
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, t));
}

DS_KERNEL(ds_rope, plan, run_any);
