/* Values from quantised ones, on a CPU: y = q * step + offset.
 *
 * Limit: memory. A byte or half of one is read and an element of T written; large results go past
 * the caches, else a store would first read what it overwrites.
 */
#include "values.h"

/* dequantize(q, params, y); an item is a group, or a chunk of one. */
enum { Q, PARAMS, Y };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    int64_t length = y->shape[1] * y->shape[2];
    out->phases = 1;
    out->phase[0].items = y->shape[0] * chunks_of(length);
    out->phase[0].grain = ds_max(1, WORTH_A_THREAD / ds_max(1, length));
}

DS_INLINE void expand(const int8_t *q, int64_t n, const numbers *of, void *y, int64_t at, int64_t per_byte, uint32_t t,
                      int streams) {
    int plain = is_plain(of->p);
    int64_t i = 0;
    for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES) {
        ds_vec2 v = number_pair(q, i, of, per_byte);
        ds_store2_in_order(y, at + i, v, t, plain, streams);
    }
    for (; i < n; i += DS_LANES) ds_store_first(n - i, y, at + i, number_first(q, i, n - i, of, per_byte), t);
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    const float *params = ds_arg_tensor(call, PARAMS, 0)->data;
    const int8_t *q = ds_arg_tensor(call, Q, 0)->data;
    int64_t per_byte = y->shape[2], length = y->shape[1] * per_byte, chunks = chunks_of(length);
    int large = ds_streams(ds_elements(y), t);
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / chunks, at = item % chunks * CHUNK, n = ds_min(CHUNK, length - at);
        int64_t to = group * length + at;
        numbers of = numbers_of(params[2 * group], params[2 * group + 1]);
        int streams = large && ds_aligned(ds_at(y->data, to, t));
        if (per_byte == 1) expand(q + to, n, &of, y->data, to, 1, t, streams);
        else expand(q + to / 2, n, &of, y->data, to, 2, t, streams);
    }
    if (large) ds_fence();
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, Y, 0)->dtype, run(call, begin, end, t));
}

DS_KERNEL(ds_dequantize, plan, run_any);
