/* One step of LAMB over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. A tensor's norms are known when all of it was read, so it is read twice: first
 * params and grads are read and both moments read and written, then params read and written and both
 * moments read; 40 bytes an element with gradients of f32.
 */
#include "ds_cpu_list.h"

/* lamb_step(params, grads, exp_avg, exp_avg_sq, found_inf?; lr, beta1, beta2, eps, weight_decay,
 * max_coeff, min_coeff, grad_scale, step; eps_inside_sqrt, bias_correction) -> (ratios). */
enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, FOUND_INF, RATIOS };
enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY, MAX_COEFF, MIN_COEFF, GRAD_SCALE, STEP };
enum { EPS_INSIDE_SQRT, BIAS_CORRECTION };

/* Phase 1: an item is a block, whose moments are updated, and whose shares of both norms go to the
 * workspace. Phase 2: an item is a tensor; its shares are added in their order to its ratio. Phase 3:
 * an item is a block again. */
enum {
    PART = 64 * DS_LANES, /* f32 sums of 64 terms a lane; between parts, f64 */
    AHEAD = 256,          /* elements from what is read to what is fetched */
};

typedef struct norms {
    double param, update; /* sums of squares */
} norms;

static void plan(const ds_call *call, ds_plan *out) {
    ds_list_plan(call, PARAMS, out);
    out->phases = 4;
    out->phase[2] = (ds_phase){.items = call->args[PARAMS].count, .grain = 64};
    out->phase[3] = out->phase[1];
    out->workspace_bytes += out->phase[1].items * (int64_t)sizeof(norms);
}

static norms *block_norms(const ds_call *call) {
    return (norms *)((char *)call->workspace + ds_list_bytes(call, PARAMS));
}

typedef struct constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float eps, weight_decay;
    float inverse_scale; /* of the gradients */
    float step_size;     /* lr sqrt(1 - beta2^step) / (1 - beta1^step) */
    int eps_inside_sqrt;
} constants;

static double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2) result *= base;
    return result;
}

static constants constants_of(const ds_call *call) {
    const ds_value *s = call->scalars;
    double correction = 1;
    if (call->attributes[BIAS_CORRECTION].i)
        correction = ds_sqrt(1 - power(s[BETA2].f, s[STEP].i)) / (1 - power(s[BETA1].f, s[STEP].i));
    return (constants){
        .beta1 = (float)s[BETA1].f,
        .beta2 = (float)s[BETA2].f,
        .one_minus_beta1 = (float)(1 - s[BETA1].f),
        .one_minus_beta2 = (float)(1 - s[BETA2].f),
        .eps = (float)s[EPS].f,
        .weight_decay = (float)s[WEIGHT_DECAY].f,
        .inverse_scale = (float)(1 / s[GRAD_SCALE].f),
        .step_size = (float)(s[LR].f * correction),
        .eps_inside_sqrt = (int)call->attributes[EPS_INSIDE_SQRT].i,
    };
}

DS_INLINE ds_vec update_of(const constants *k, ds_vec param, ds_vec mean, ds_vec square) {
    ds_vec root = k->eps_inside_sqrt ? ds_vsqrt(square + k->eps) : ds_vsqrt(square) + k->eps;
    return ds_vfma(ds_splat(k->weight_decay), param, ds_vdiv(mean, root));
}

/* The arrays of a tensor. */
typedef struct arrays {
    float *param;
    const void *grad;
    float *mean, *square;
} arrays;

static arrays arrays_of(const ds_call *call, uint32_t tensor) {
    return (arrays){ds_arg_tensor(call, PARAMS, tensor)->data, ds_arg_tensor(call, GRADS, tensor)->data,
                    ds_arg_tensor(call, EXP_AVG, tensor)->data, ds_arg_tensor(call, EXP_AVG_SQ, tensor)->data};
}

DS_INLINE void fetch(arrays at, int64_t i) {
    ds_prefetch2(at.param, i + AHEAD, DS_F32, 1);
    ds_prefetch2(at.mean, i + AHEAD, DS_F32, 1);
    ds_prefetch2(at.square, i + AHEAD, DS_F32, 1);
}

/* Squares of a vector of parameters and of their updates, after the moments' update. */
typedef struct sums {
    ds_vec param, update;
} sums;

DS_INLINE sums moments(const constants *k, arrays at, int64_t i, int64_t n, sums sum, uint32_t g) {
    ds_vec grad = ds_load_first(n, at.grad, i, g) * k->inverse_scale, param = ds_load_first(n, at.param, i, DS_F32);
    ds_vec mean = ds_load_first(n, at.mean, i, DS_F32), square = ds_load_first(n, at.square, i, DS_F32);
    mean = ds_vfma(grad, ds_splat(k->one_minus_beta1), mean * k->beta1);
    square = ds_vfma(grad * grad, ds_splat(k->one_minus_beta2), square * k->beta2);
    ds_store_first(n, at.mean, i, mean, DS_F32);
    ds_store_first(n, at.square, i, square, DS_F32);
    ds_vec update = update_of(k, param, mean, square);
    if (n < DS_LANES) { /* lanes behind the end may be 0 / 0 */
        float rest[DS_LANES] = {0};
        ds_store_first(n, rest, 0, update, DS_F32);
        update = ds_load(rest, 0, DS_F32);
    }
    return (sums){ds_vfma(param, param, sum.param), ds_vfma(update, update, sum.update)};
}

DS_INLINE norms moments_of_block(const constants *k, arrays at, int64_t i, int64_t end, uint32_t g) {
    norms total = {0, 0};
    while (i < end) {
        int64_t stop = ds_min(i + PART, end);
        sums sum = {ds_splat(0), ds_splat(0)};
        for (; i + DS_LANES <= stop; i += DS_LANES) {
            fetch(at, i);
            ds_prefetch2(at.grad, i + AHEAD, g, 1);
            sum = moments(k, at, i, DS_LANES, sum, g);
        }
        if (i < stop) sum = moments(k, at, i, stop - i, sum, g);
        i = stop;
        total.param += ds_vsum(sum.param);
        total.update += ds_vsum(sum.update);
    }
    return total;
}

static void find_ratio(const ds_call *call, uint32_t tensor) {
    const int64_t *before = call->workspace;
    norms total = {0, 0};
    for (int64_t block = before[tensor]; block < before[tensor + 1]; block++) {
        total.param += block_norms(call)[block].param;
        total.update += block_norms(call)[block].update;
    }
    double ratio = 1;
    if (total.param != 0 && total.update != 0) {
        ratio = ds_sqrt(total.param) / ds_sqrt(total.update);
        if (ratio > call->scalars[MAX_COEFF].f) ratio = call->scalars[MAX_COEFF].f;
        if (ratio < call->scalars[MIN_COEFF].f) ratio = call->scalars[MIN_COEFF].f;
    }
    *(float *)ds_arg_tensor(call, RATIOS, tensor)->data = (float)ratio;
}

DS_INLINE void apply(const constants *k, arrays at, int64_t i, int64_t n, ds_vec step) {
    ds_vec param = ds_load_first(n, at.param, i, DS_F32);
    ds_vec mean = ds_load_first(n, at.mean, i, DS_F32), square = ds_load_first(n, at.square, i, DS_F32);
    param = ds_vfma(-step, update_of(k, param, mean, square), param);
    ds_store_first(n, at.param, i, param, DS_F32);
}

static void apply_block(const constants *k, arrays at, int64_t i, int64_t end, float ratio) {
    ds_vec step = ds_splat(k->step_size * ratio);
    for (; i + DS_LANES <= end; i += DS_LANES) {
        fetch(at, i);
        apply(k, at, i, DS_LANES, step);
    }
    if (i < end) apply(k, at, i, end - i, step);
}

/* Nothing changes, and no ratio shrinks or stretches anything. */
static void skip(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase != 2) return;
    for (int64_t i = begin; i < end; i++) *(float *)ds_arg_tensor(call, RATIOS, (uint32_t)i)->data = 1;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (ds_list_skips(call, FOUND_INF)) return skip(call, phase, begin, end);
    if (phase == 0) return ds_list_count(call, PARAMS);
    if (phase == 2) {
        for (int64_t i = begin; i < end; i++) find_ratio(call, (uint32_t)i);
        return;
    }
    const constants k = constants_of(call);
    DS_LIST_BLOCKS(call, PARAMS, block, begin, end) {
        arrays at = arrays_of(call, block.tensor);
        if (phase == 1) {
            norms *shares = &block_norms(call)[block.block];
            DS_WITH_FLOAT(g, ds_arg_tensor(call, GRADS, block.tensor)->dtype,
                          *shares = moments_of_block(&k, at, block.begin, block.end, g));
        } else {
            float ratio = *(const float *)ds_arg_tensor(call, RATIOS, block.tensor)->data;
            apply_block(&k, at, block.begin, block.end, ratio);
        }
    }
}

DS_KERNEL(ds_lamb_step, plan, run);
