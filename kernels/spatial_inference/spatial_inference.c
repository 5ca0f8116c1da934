/* Biases of images whose channels lie next to each other, on a CPU.
 *
 * Limit: memory. Each image is read once and one is written; the biases stay in the caches.
 */
#include "ds_cpu_simd.h"

/* nhwc_bias_add(x, bias) -> y, .._add(x, bias, other) -> y, .._bias_add(x, bias, other, other_bias) -> y.
 * An item is a row of channels. */
enum { X, BIAS, OTHER, OTHER_BIAS };
enum {
    CHUNK_ELEMENTS = 16 * 1024,
    PAIR = 2 * DS_LANES,
    AHEAD = 2048, /* elements from what is read to what is fetched */
};

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(x);
    out->phase[0].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x)));
}

typedef struct {
    const void *in[4];
    void *y;
} arrays;

/* (x + bias) + (other + other_bias), of `inputs` of them. */
DS_INLINE ds_vec added(const ds_vec *v, uint32_t inputs) {
    ds_vec sum = v[X] + v[BIAS];
    if (inputs == 3) sum += v[OTHER];
    if (inputs == 4) sum += v[OTHER] + v[OTHER_BIAS];
    return sum;
}

/* Fetches ahead where conversions leave too few lines on their way. */
DS_INLINE void add_row(arrays at, uint32_t inputs, int64_t n, uint32_t t, int streams) {
    int64_t i = 0;
    ds_vec a[4], b[4];
    for (; i + PAIR <= n; i += PAIR) {
        if (t != DS_F32) ds_prefetch2(at.in[X], i + AHEAD, t, 1);
        if (t != DS_F32 && inputs > OTHER) ds_prefetch2(at.in[OTHER], i + AHEAD, t, 1);
        for (uint32_t k = 0; k < inputs; k++) {
            ds_vec2 v = ds_load2(at.in[k], i, t);
            a[k] = v.a, b[k] = v.b;
        }
        ds_store2(at.y, i, (ds_vec2){added(a, inputs), added(b, inputs)}, t, streams);
    }
    for (; i < n; i += DS_LANES) {
        for (uint32_t k = 0; k < inputs; k++) a[k] = ds_load_first(n - i, at.in[k], i, t);
        ds_store_first(n - i, at.y, i, added(a, inputs), t);
    }
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t inputs, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    void *y = ds_arg_tensor(call, inputs, 0)->data;
    int64_t channels = ds_row_length(x);
    int large = ds_streams(ds_elements(x), t);
    for (int64_t row = begin; row < end; row++) {
        arrays at = {.y = ds_at(y, row * channels, t)};
        for (uint32_t k = 0; k < inputs; k++) {
            const void *data = ds_arg_tensor(call, k, 0)->data;
            at.in[k] = k == BIAS || k == OTHER_BIAS ? data : ds_at(data, row * channels, t);
        }
        add_row(at, inputs, channels, t, large && ds_aligned(at.y));
    }
    if (large) ds_fence();
}

#define KERNEL(name, inputs)                                                                  \
    static void run_##name(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                          \
        DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, inputs, t)); \
    }                                                                                         \
    DS_KERNEL(ds_##name, plan, run_##name)

KERNEL(nhwc_bias_add, 2);
KERNEL(nhwc_bias_add_add, 3);
KERNEL(nhwc_bias_add_bias_add, 4);
