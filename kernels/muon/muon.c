/* What Muon does beside its matrix products, on a CPU: element by element, all tensors contiguous.
 *
 * Limit: memory. Each input is read and each output written once; large results of their own go past
 * the caches. An item is an element.
 */
#include "ds_cpu_simd.h"

enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    PAIR = 2 * DS_LANES,
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

/* muon_momentum(grad, momentum, found_inf?; beta; nesterov) -> (update), in the gradient's dtype. */
enum { M_GRAD, M_MOMENTUM, M_FOUND_INF, M_UPDATE };

DS_INLINE void momentum(const ds_call *call, int64_t i, int64_t end, uint32_t g, uint32_t m) {
    const void *grad = data_of(call, M_GRAD);
    void *mean = data_of(call, M_MOMENTUM), *update = data_of(call, M_UPDATE);
    ds_vec beta = ds_splat((float)call->scalars[0].f), joins = ds_splat((float)(1 - call->scalars[0].f));
    int nesterov = (int)call->attributes[0].i, skips = value_of(call, M_FOUND_INF, 0) != 0;
    for (; i < end; i += DS_LANES) {
        ds_vec x = ds_load_first(end - i, grad, i, g), v = ds_load_first(end - i, mean, i, m);
        v = ds_vfma(joins, x, v * beta);
        if (!skips) ds_store_first(end - i, mean, i, v, m);
        ds_vec ahead = nesterov ? ds_vfma(beta, v, x * joins) : v;
        ds_store_first(end - i, update, i, skips ? x : ahead, g);
    }
}

static void momentum_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    uint32_t m = dtype_of(call, M_MOMENTUM);
    if (m == DS_F32) DS_WITH_FLOAT(g, dtype_of(call, M_GRAD), momentum(call, begin, end, g, DS_F32));
    else DS_WITH_FLOAT(g, m, momentum(call, begin, end, g, g));
}

/* muon_normalize(x, norm; eps) -> (y) */
enum { N_X, N_NORM, N_Y };

DS_INLINE void normalize(const ds_call *call, int64_t i, int64_t end, uint32_t x, uint32_t y) {
    const void *from = data_of(call, N_X);
    void *to = data_of(call, N_Y);
    ds_vec by = ds_splat((float)(1 / ((double)value_of(call, N_NORM, 0) + call->scalars[0].f)));
    for (; i < end; i += DS_LANES) ds_store_first(end - i, to, i, ds_load_first(end - i, from, i, x) * by, y);
}

static void normalize_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    uint32_t y = dtype_of(call, N_Y);
    if (y == DS_F32) DS_WITH_FLOAT(x, dtype_of(call, N_X), normalize(call, begin, end, x, DS_F32));
    else DS_WITH_FLOAT(x, dtype_of(call, N_X), normalize(call, begin, end, x, DS_BF16));
}

/* muon_combine(x, y; a, b) -> (z) */
enum { C_X, C_Y, C_Z };

DS_INLINE void combine(const ds_call *call, int64_t i, int64_t end, uint32_t t, int streams) {
    const void *x = data_of(call, C_X), *y = data_of(call, C_Y);
    void *z = data_of(call, C_Z);
    ds_vec a = ds_splat((float)call->scalars[0].f), b = ds_splat((float)call->scalars[1].f);
    for (; i + PAIR <= end; i += PAIR) {
        ds_vec2 v = ds_load2(x, i, t), w = ds_load2(y, i, t);
        ds_store2(z, i, (ds_vec2){ds_vfma(a, v.a, b * w.a), ds_vfma(a, v.b, b * w.b)}, t, streams);
    }
    for (; i < end; i += DS_LANES) {
        ds_vec v = ds_load_first(end - i, x, i, t), w = ds_load_first(end - i, y, i, t);
        ds_store_first(end - i, z, i, ds_vfma(a, v, b * w), t);
    }
    if (streams) ds_fence();
}

static void combine_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *z = ds_arg_tensor(call, C_Z, 0);
    int in_place = z->data == data_of(call, C_X) || z->data == data_of(call, C_Y);
    int streams = !in_place && ds_streams(ds_elements(z), z->dtype) && ds_aligned(z->data);
    DS_WITH_FLOAT(t, z->dtype, if (streams) combine(call, begin, end, t, 1); else combine(call, begin, end, t, 0));
}

/* muon_apply(param, update, found_inf?; lr, weight_decay, scale) */
enum { A_PARAM, A_UPDATE, A_FOUND_INF };
enum { LR, WEIGHT_DECAY, SCALE };

DS_INLINE void apply(const ds_call *call, int64_t i, int64_t end, uint32_t p, uint32_t u) {
    const void *update = data_of(call, A_UPDATE);
    void *param = data_of(call, A_PARAM);
    const ds_value *s = call->scalars;
    ds_vec kept = ds_splat((float)(1 - s[LR].f * s[WEIGHT_DECAY].f)), step = ds_splat((float)(-s[LR].f * s[SCALE].f));
    for (; i < end; i += DS_LANES) {
        ds_vec v = ds_load_first(end - i, param, i, p) * kept;
        ds_store_first(end - i, param, i, ds_vfma(step, ds_load_first(end - i, update, i, u), v), p);
    }
}

static void apply_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    if (value_of(call, A_FOUND_INF, 0) != 0) return;
    uint32_t p = dtype_of(call, A_PARAM);
    if (dtype_of(call, A_UPDATE) == DS_F32) DS_WITH_FLOAT(t, p, apply(call, begin, end, t, DS_F32));
    else DS_WITH_FLOAT(t, p, apply(call, begin, end, t, DS_BF16));
}

DS_KERNEL(ds_muon_momentum, plan, momentum_run);
DS_KERNEL(ds_muon_normalize, plan, normalize_run);
DS_KERNEL(ds_muon_combine, plan, combine_run);
DS_KERNEL(ds_muon_apply, plan, apply_run);
