/* One step of Adam or AdamW over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. Every element of params and both moments is read and written, of grads read: with
 * all in f32 28 bytes an element, bf16 with f32 moments 22, all bf16 14. The dozen flops, a square
 * root and a division hide behind that.
 */
#include "ds_cpu_simd.h"

/* adam_step(params, grads, exp_avg, exp_avg_sq, found_inf?; lr, beta1, beta2, eps, weight_decay,
 * step; adamw, bias_correction). */
enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, FOUND_INF };
enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY, STEP };
enum { ADAMW, BIAS_CORRECTION };

/* Phase 0, one item: the blocks before each tensor, counted into the workspace.
 * Phase 1: an item is a block of one tensor. */
enum { BLOCK = 16 * 1024, AHEAD_BYTES = 1024 };

static int64_t blocks_of(const ds_call *call, uint32_t tensor) {
    return ds_div_up(ds_elements(ds_arg_tensor(call, PARAMS, tensor)), BLOCK);
}

static void plan(const ds_call *call, ds_plan *out) {
    uint32_t tensors = call->args[PARAMS].count;
    int64_t blocks = 0;
    for (uint32_t i = 0; i < tensors; i++) blocks += blocks_of(call, i);
    out->phases = 2;
    out->phase[0].items = 1;
    out->phase[0].grain = 1;
    out->phase[1].items = blocks;
    out->phase[1].grain = ds_min(ds_max(1, blocks / 256), 8);
    out->workspace_bytes = ((int64_t)tensors + 1) * 8;
}

static void count_blocks(const ds_call *call) {
    int64_t *before = call->workspace;
    before[0] = 0;
    for (uint32_t i = 0; i < call->args[PARAMS].count; i++) before[i + 1] = before[i] + blocks_of(call, i);
}

/* The last tensor with at most `block` blocks before it: never one without elements. */
static uint32_t tensor_of(const ds_call *call, int64_t block) {
    const int64_t *before = call->workspace;
    uint32_t low = 0, high = call->args[PARAMS].count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (before[middle] <= block) low = middle;
        else high = middle;
    }
    return low;
}

/* The scalars of a step as the loop wants them; DeepSpeed's order of operations. */
typedef struct {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float eps;
    float step_size;     /* -lr / (1 - beta1^step) */
    float inverse_root;  /* 1 / sqrt(1 - beta2^step) */
    enum { NO_DECAY, L2, DECOUPLED } decay;
    float l2;            /* weight decay that joins the gradient */
    float decoupled;     /* -lr * weight decay, that shrinks the parameter itself */
} constants;

static double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2) result *= base;
    return result;
}

static constants constants_of(const ds_call *call) {
    const ds_value *s = call->scalars;
    double correction1 = 1, correction2 = 1;
    if (call->attributes[BIAS_CORRECTION].i) {
        correction1 = 1 - power(s[BETA1].f, s[STEP].i);
        correction2 = 1 - power(s[BETA2].f, s[STEP].i);
    }
    constants k;
    k.beta1 = (float)s[BETA1].f;
    k.beta2 = (float)s[BETA2].f;
    k.one_minus_beta1 = (float)(1 - s[BETA1].f);
    k.one_minus_beta2 = (float)(1 - s[BETA2].f);
    k.eps = (float)s[EPS].f;
    k.step_size = (float)(-s[LR].f / correction1);
    k.inverse_root = (float)(1 / ds_sqrt(correction2));
    k.decay = s[WEIGHT_DECAY].f == 0 ? NO_DECAY : call->attributes[ADAMW].i ? DECOUPLED : L2;
    k.l2 = (float)s[WEIGHT_DECAY].f;
    k.decoupled = (float)(-s[LR].f * s[WEIGHT_DECAY].f);
    return k;
}

/* One vector of a step: params and moments are updated. */
typedef struct {
    ds_vec param, grad, exp_avg, exp_avg_sq;
} lanes;

DS_INLINE lanes updated(const constants *k, lanes v) {
    if (k->decay == L2) v.grad = ds_vfma(ds_splat(k->l2), v.param, v.grad);
    v.exp_avg = ds_vfma(v.grad, ds_splat(k->one_minus_beta1), v.exp_avg * k->beta1);
    v.exp_avg_sq = ds_vfma(v.grad * v.grad, ds_splat(k->one_minus_beta2), v.exp_avg_sq * k->beta2);
    ds_vec root = ds_vfma(ds_vsqrt(v.exp_avg_sq), ds_splat(k->inverse_root), ds_splat(k->eps));
    if (k->decay == DECOUPLED) v.param = ds_vfma(ds_splat(k->decoupled), v.param, v.param);
    v.param = ds_vfma(ds_vdiv(v.exp_avg, root), ds_splat(k->step_size), v.param);
    return v;
}

/* The four arrays of a tensor, with params and grads of dtype `p` and moments of `m`. */
typedef struct {
    void *param;
    const void *grad;
    void *exp_avg, *exp_avg_sq;
} arrays;

/* The first `n` lanes at element `i`. */
DS_INLINE void update(const constants *k, const arrays *at, int64_t i, int64_t n, uint32_t p, uint32_t m) {
    lanes v = {ds_load_first(n, at->param, i, p), ds_load_first(n, at->grad, i, p),
               ds_load_first(n, at->exp_avg, i, m), ds_load_first(n, at->exp_avg_sq, i, m)};
    v = updated(k, v);
    ds_store_first(n, at->param, i, v.param, p);
    ds_store_first(n, at->exp_avg, i, v.exp_avg, m);
    ds_store_first(n, at->exp_avg_sq, i, v.exp_avg_sq, m);
}

/* A pair of vectors at element `i`; all four arrays of one dtype, or the orders would differ. */
DS_INLINE void update2(const constants *k, const arrays *at, int64_t i, uint32_t t) {
    ds_vec2 w = ds_load2(at->param, i, t), g = ds_load2(at->grad, i, t);
    ds_vec2 mean = ds_load2(at->exp_avg, i, t), square = ds_load2(at->exp_avg_sq, i, t);
    lanes a = updated(k, (lanes){w.a, g.a, mean.a, square.a});
    lanes b = updated(k, (lanes){w.b, g.b, mean.b, square.b});
    ds_store2(at->param, i, (ds_vec2){a.param, b.param}, t, 0);
    ds_store2(at->exp_avg, i, (ds_vec2){a.exp_avg, b.exp_avg}, t, 0);
    ds_store2(at->exp_avg_sq, i, (ds_vec2){a.exp_avg_sq, b.exp_avg_sq}, t, 0);
}

/* What the processor fetches ahead by itself is not enough for four arrays and a loop this long. */
DS_INLINE void prefetch(const arrays *at, int64_t i, uint32_t p, uint32_t m) {
    int64_t of_params = i + (p == DS_F32 ? AHEAD_BYTES / 4 : AHEAD_BYTES / 2);
    int64_t of_moments = i + (m == DS_F32 ? AHEAD_BYTES / 4 : AHEAD_BYTES / 2);
    ds_prefetch2(at->param, of_params, p, 1);
    ds_prefetch2(at->grad, of_params, p, 1);
    ds_prefetch2(at->exp_avg, of_moments, m, 1);
    ds_prefetch2(at->exp_avg_sq, of_moments, m, 1);
}

DS_INLINE void step(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t p, uint32_t m) {
    if (phase == 0) {
        count_blocks(call);
        return;
    }
    if (call->args[FOUND_INF].count && *(const float *)ds_arg_tensor(call, FOUND_INF, 0)->data != 0) return;
    const constants k = constants_of(call);
    const int64_t *before = call->workspace;
    uint32_t tensor = tensor_of(call, begin);
    for (int64_t block = begin; block < end; block++) {
        while (before[tensor + 1] <= block) tensor++;
        const ds_tensor *param = ds_arg_tensor(call, PARAMS, tensor);
        arrays at = {param->data, ds_arg_tensor(call, GRADS, tensor)->data,
                     ds_arg_tensor(call, EXP_AVG, tensor)->data,
                     ds_arg_tensor(call, EXP_AVG_SQ, tensor)->data};
        int64_t i = (block - before[tensor]) * BLOCK, stop = ds_min(i + BLOCK, ds_elements(param));
        for (; i + 2 * DS_LANES <= stop; i += 2 * DS_LANES) {
            prefetch(&at, i, p, m);
            if (p == m) {
                update2(&k, &at, i, p);
            } else {
                update(&k, &at, i, DS_LANES, p, m);
                update(&k, &at, i + DS_LANES, DS_LANES, p, m);
            }
        }
        for (; i < stop; i += DS_LANES) update(&k, &at, i, stop - i, p, m);
    }
}

#define KERNEL(param, p, moment, m)                                                                 \
    static void step_##param##_##moment(const ds_call *c, uint32_t phase, int64_t begin, int64_t end) { \
        step(c, phase, begin, end, p, m);                                                           \
    }                                                                                               \
    DS_KERNEL(ds_adam_step_##param##_##moment, plan, step_##param##_##moment)

KERNEL(f32, DS_F32, f32, DS_F32);
KERNEL(bf16, DS_BF16, f32, DS_F32);
KERNEL(bf16, DS_BF16, bf16, DS_BF16);
KERNEL(f16, DS_F16, f32, DS_F32);
KERNEL(f16, DS_F16, f16, DS_F16);
