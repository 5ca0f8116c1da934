/* What Muon does beside its matrix products, on a CPU: element by element, all tensors contiguous.
 *
 * Limit: memory. Each input is read and each output written once; large results of their own go past
 * the caches. An item is an element. Dtypes are asked at run time, which memory hides: one loop an op
 * serves all of their pairs.
 */
#include "ds_cpu_mixed.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
    AHEAD_BYTES = 2048,
};

/* Every op's first argument has the shape of all. */
static void plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0] = (ds_phase){.items = ds_elements(ds_arg_tensor(call, 0, 0)), .grain = CHUNK_ELEMENTS};
}

static void *data_of(const ds_call *call, uint32_t arg) { return ds_arg_tensor(call, arg, 0)->data; }

static uint32_t dtype_of(const ds_call *call, uint32_t arg) { return ds_arg_tensor(call, arg, 0)->dtype; }

/* The value of an f32 without dimensions, or `otherwise` where the optional argument is missing. */
static float value_of(const ds_call *call, uint32_t arg, float otherwise) {
    return call->args[arg].count ? *(const float *)data_of(call, arg) : otherwise;
}

static int goes_past_caches(const ds_call *call, uint32_t arg) {
    const ds_tensor *t = ds_arg_tensor(call, arg, 0);
    return ds_streams(ds_elements(t), t->dtype) && ds_aligned(t->data);
}

/* A pair of which the first `n` are there. */
DS_INLINE ds_vec2 load_pair(int64_t n, const void *data, int64_t i, uint32_t t) {
    double rest[PAIR]; /* room for any dtype */
    ds_prefetch2(ds_at(data, i, t), AHEAD_BYTES / ds_size(t), t, 1);
    if (n < PAIR) {
        __builtin_memset(rest, 0, sizeof rest);
        __builtin_memcpy(rest, ds_at(data, i, t), (size_t)(n * ds_size(t)));
        data = rest;
        i = 0;
    }
    return ds_load2_in_order(data, i, t);
}

DS_INLINE void store_pair(int64_t n, void *data, int64_t i, ds_vec2 v, uint32_t t, int streams) {
    double rest[PAIR];
    int whole = n >= PAIR;
    ds_store2_in_order(whole ? data : rest, whole ? i : 0, v, t, 1, whole && streams);
    if (!whole) __builtin_memcpy(ds_at(data, i, t), rest, (size_t)(n * ds_size(t)));
}

/* muon_momentum(grad, momentum, found_inf?; beta; nesterov) -> (update), in the gradient's dtype. */
enum { M_GRAD, M_MOMENTUM, M_FOUND_INF, M_UPDATE };

DS_INLINE ds_vec2 of_both(ds_vec a, ds_vec2 x, ds_vec b, ds_vec2 y) {
    return (ds_vec2){ds_vfma(a, x.a, y.a * b), ds_vfma(a, x.b, y.b * b)};
}

static void momentum_run(const ds_call *call, uint32_t phase, int64_t i, int64_t end) {
    (void)phase;
    const void *grad = data_of(call, M_GRAD);
    void *mean = data_of(call, M_MOMENTUM), *update = data_of(call, M_UPDATE);
    uint32_t g = dtype_of(call, M_GRAD), m = dtype_of(call, M_MOMENTUM);
    ds_vec beta = ds_splat((float)call->scalars[0].f), joins = ds_splat((float)(1 - call->scalars[0].f));
    int nesterov = (int)call->attributes[0].i, skips = value_of(call, M_FOUND_INF, 0) != 0;
    int streams = goes_past_caches(call, M_UPDATE);
    for (; i < end; i += PAIR) {
        DS_ASK_EACH_TIME(g, m);
        int64_t n = end - i;
        ds_vec2 x = load_pair(n, grad, i, g), v = of_both(joins, x, beta, load_pair(n, mean, i, m));
        if (!skips) store_pair(n, mean, i, v, m, 0);
        ds_vec2 ahead = v;
        if (nesterov) ahead = of_both(beta, v, joins, x);
        store_pair(n, update, i, skips ? x : ahead, g, streams);
    }
    if (streams) ds_fence();
}

/* muon_normalize(x, norm; eps) -> (y) */
enum { N_X, N_NORM, N_Y };

static void normalize_run(const ds_call *call, uint32_t phase, int64_t i, int64_t end) {
    (void)phase;
    const void *from = data_of(call, N_X);
    void *to = data_of(call, N_Y);
    uint32_t x = dtype_of(call, N_X), y = dtype_of(call, N_Y);
    ds_vec by = ds_splat((float)(1 / ((double)value_of(call, N_NORM, 0) + call->scalars[0].f)));
    int streams = goes_past_caches(call, N_Y);
    for (; i < end; i += PAIR) {
        DS_ASK_EACH_TIME(x, y);
        ds_vec2 v = load_pair(end - i, from, i, x);
        store_pair(end - i, to, i, (ds_vec2){v.a * by, v.b * by}, y, streams);
    }
    if (streams) ds_fence();
}

/* muon_combine(x, y; a, b) -> (z) */
enum { C_X, C_Y, C_Z };

static void combine_run(const ds_call *call, uint32_t phase, int64_t i, int64_t end) {
    (void)phase;
    const void *x = data_of(call, C_X), *y = data_of(call, C_Y);
    void *z = data_of(call, C_Z);
    uint32_t t = dtype_of(call, C_Z);
    ds_vec a = ds_splat((float)call->scalars[0].f), b = ds_splat((float)call->scalars[1].f);
    int streams = z != x && z != y && goes_past_caches(call, C_Z);
    for (; i < end; i += PAIR) {
        DS_ASK_EACH_TIME(t, t);
        ds_vec2 v = load_pair(end - i, x, i, t), w = load_pair(end - i, y, i, t);
        store_pair(end - i, z, i, of_both(a, v, b, w), t, streams);
    }
    if (streams) ds_fence();
}

/* muon_apply(param, update, found_inf?; lr, weight_decay, scale) */
enum { A_PARAM, A_UPDATE, A_FOUND_INF };
enum { LR, WEIGHT_DECAY, SCALE };

static void apply_run(const ds_call *call, uint32_t phase, int64_t i, int64_t end) {
    (void)phase;
    if (value_of(call, A_FOUND_INF, 0) != 0) return;
    const void *update = data_of(call, A_UPDATE);
    void *param = data_of(call, A_PARAM);
    uint32_t p = dtype_of(call, A_PARAM), u = dtype_of(call, A_UPDATE);
    const ds_value *s = call->scalars;
    ds_vec kept = ds_splat((float)(1 - s[LR].f * s[WEIGHT_DECAY].f)), step = ds_splat((float)(-s[LR].f * s[SCALE].f));
    for (; i < end; i += PAIR) {
        DS_ASK_EACH_TIME(p, u);
        int64_t n = end - i;
        store_pair(n, param, i, of_both(step, load_pair(n, update, i, u), kept, load_pair(n, param, i, p)), p, 0);
    }
}

DS_KERNEL(ds_muon_momentum, plan, momentum_run);
DS_KERNEL(ds_muon_normalize, plan, normalize_run);
DS_KERNEL(ds_muon_combine, plan, combine_run);
DS_KERNEL(ds_muon_apply, plan, apply_run);
