/* Norm, scale and clip of a list of gradients, on a CPU.
 *
 * Limit: memory. The norm reads an element once, and tells by the same sum whether all are finite;
 * scale and clip read and write it once, or leave it alone where the factor is 1.
 */
#include "ds_cpu_list.h"

/* grad_norm(grads) -> (norm, found_inf); an item of phase 1 is a block, which leaves its sum of
 * squares in the workspace, behind the counts; phase 2 adds them in their order. */
enum { GRADS, NORM, NORM_FOUND_INF };
enum {
    PAIR = 2 * DS_LANES,
    PART = 64 * DS_LANES, /* f32 sums of at most 16 terms a lane; between parts, f64 */
    AHEAD_BYTES = 2048,
};

static void norm_plan(const ds_call *call, ds_plan *out) {
    ds_list_plan(call, GRADS, out);
    out->phases = 3;
    out->phase[2] = (ds_phase){.items = 1, .grain = 1};
    out->workspace_bytes += out->phase[1].items * 8;
}

static double *block_sums(const ds_call *call) {
    return (double *)((char *)call->workspace + ds_list_bytes(call, GRADS));
}

DS_INLINE ds_vec2 add_squares(ds_vec2 sum, ds_vec2 v, ds_vec scale) {
    v = (ds_vec2){v.a * scale, v.b * scale};
    return (ds_vec2){ds_vfma(v.a, v.a, sum.a), ds_vfma(v.b, v.b, sum.b)};
}

/* Sum of (scale * x[i])^2. */
DS_INLINE double squares_scaled(const void *x, int64_t i, int64_t end, float by, uint32_t t) {
    ds_vec2 sum[2] = {{{0}, {0}}, {{0}, {0}}};
    ds_vec scale = ds_splat(by);
    for (; i + 2 * PAIR <= end; i += 2 * PAIR) {
        ds_prefetch2(x, i + AHEAD_BYTES / ds_size(t), t, 1);
        ds_prefetch2(x, i + AHEAD_BYTES / ds_size(t) + PAIR, t, 1);
        sum[0] = add_squares(sum[0], ds_load2(x, i, t), scale);
        sum[1] = add_squares(sum[1], ds_load2(x, i + PAIR, t), scale);
    }
    for (; i < end; i += DS_LANES) {
        ds_vec v = ds_load_first(end - i, x, i, t) * scale;
        sum[0].a = ds_vfma(v, v, sum[0].a);
    }
    return ds_vsum((sum[0].a + sum[0].b) + (sum[1].a + sum[1].b));
}

/* Sum of x[i]^2 of at most PART elements. The few parts whose squares leave the range of f32 are
 * computed again, scaled by powers of two: infinite is then only what has an element that is. Squares
 * that vanish beside a sum of 2^-100 or more are too small to matter. */
DS_INLINE double squares(const void *x, int64_t i, int64_t end, uint32_t t) {
    const float small = 0x1p-100f, up = 0x1p100f, down = 0x1p-75f;
    double sum = squares_scaled(x, i, end, 1, t);
    if (t == DS_F16) return sum; /* its squares lie between 2^-48 and 2^32 */
    if (sum < (double)small) return squares_scaled(x, i, end, up, t) * 0x1p-200;
    if (!(sum < (double)__builtin_inff())) return squares_scaled(x, i, end, down, t) * 0x1p150;
    return sum;
}

static __attribute__((noinline)) double block_squares(const void *x, int64_t i, int64_t end, uint32_t dtype) {
    double sum = 0;
    for (; i < end; i += PART) DS_WITH_FLOAT(t, dtype, sum += squares(x, i, ds_min(i + PART, end), t));
    return sum;
}

static void norm_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    double *sums = block_sums(call);
    if (phase == 0) {
        ds_list_count(call, GRADS);
    } else if (phase == 1) {
        DS_LIST_BLOCKS(call, GRADS, at, begin, end) {
            const ds_tensor *x = ds_arg_tensor(call, GRADS, at.tensor);
            sums[at.block] = block_squares(x->data, at.begin, at.end, x->dtype);
        }
    } else {
        int64_t blocks = ((const int64_t *)call->workspace)[call->args[GRADS].count];
        double sum = 0;
        for (int64_t i = 0; i < blocks; i++) sum += sums[i];
        *(float *)ds_arg_tensor(call, NORM, 0)->data = (float)ds_sqrt(sum);
        *(float *)ds_arg_tensor(call, NORM_FOUND_INF, 0)->data = sum < __builtin_inf() ? 0 : 1;
    }
}

DS_KERNEL(ds_grad_norm, norm_plan, norm_run);

/* Both that multiply in place: an item of phase 1 is a block. */
static void multiply_plan(const ds_call *call, ds_plan *out) { ds_list_plan(call, GRADS, out); }

DS_INLINE void multiply(void *x, int64_t i, int64_t end, ds_vec by, uint32_t t) {
    for (; i + PAIR <= end; i += PAIR) {
        ds_vec2 v = ds_load2(x, i, t);
        ds_prefetch2(x, i + AHEAD_BYTES / ds_size(t), t, 1);
        ds_store2(x, i, (ds_vec2){v.a * by, v.b * by}, t, 0);
    }
    for (; i < end; i += DS_LANES) ds_store_first(end - i, x, i, ds_load_first(end - i, x, i, t) * by, t);
}

static void multiply_blocks(const ds_call *call, int64_t begin, int64_t end, float by) {
    if (by == 1) return;
    DS_LIST_BLOCKS(call, GRADS, at, begin, end) {
        const ds_tensor *x = ds_arg_tensor(call, GRADS, at.tensor);
        DS_WITH_FLOAT(t, x->dtype, multiply(x->data, at.begin, at.end, ds_splat(by), t));
    }
}

/* grad_scale(grads, by?; factor) */
enum { BY = 1 };
enum { FACTOR };

static void scale_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) return ds_list_count(call, GRADS);
    double by = call->scalars[FACTOR].f;
    if (call->args[BY].count) by *= (double)*(const float *)ds_arg_tensor(call, BY, 0)->data;
    multiply_blocks(call, begin, end, (float)by);
}

DS_KERNEL(ds_grad_scale, multiply_plan, scale_run);

/* grad_clip(grads, norm; max_norm, factor); a norm that is NaN makes everything NaN. */
enum { CLIP_NORM = 1 };
enum { MAX_NORM, CLIP_FACTOR };

static void clip_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) return ds_list_count(call, GRADS);
    double norm = (double)*(const float *)ds_arg_tensor(call, CLIP_NORM, 0)->data;
    double factor = call->scalars[CLIP_FACTOR].f;
    double clip = call->scalars[MAX_NORM].f / (norm * factor + 1e-6);
    multiply_blocks(call, begin, end, (float)(clip > 1 ? factor : clip * factor));
}

DS_KERNEL(ds_grad_clip, multiply_plan, clip_run);
