/* A step of Adam or AdamW taken back, in place, on a CPU.
 *
 * Limit: memory, as that of the step: 28 bytes an element.
 */
#include "adam.h"
#include "ds_cpu_math.h"

typedef struct inverse {
    constants step;
    float inverse_kept; /* 1 / (1 - lr * weight decay) */
    float inverse_beta1, inverse_beta2;
} inverse;

/* What was multiplied by 0 is lost, and counts for nothing: any finite value does. */
static float inverse_of(double beta) { return beta == 0 ? 0 : (float)(1 / beta); }

static inverse inverse_of_call(const ds_call *call) {
    const ds_value *s = call->scalars;
    inverse k = {.step = constants_of(call)};
    k.inverse_kept = k.step.decay == DECOUPLED ? (float)(1 / (1 - s[LR].f * s[WEIGHT_DECAY].f)) : 1;
    k.inverse_beta1 = inverse_of(s[BETA1].f);
    k.inverse_beta2 = inverse_of(s[BETA2].f);
    return k;
}

DS_INLINE ds_lanes taken_back(const void *of_call, ds_lanes v) {
    const inverse *k = of_call;
    const constants *c = &k->step;
    ds_vec root = ds_vfma(ds_vsqrt(v.second), ds_splat(c->inverse_root), ds_splat(c->eps));
    ds_vec param = ds_vfma(ds_vdiv(v.first, root), ds_splat(-c->step_size), v.param) * k->inverse_kept;
    v.param = ds_vselect(ds_vabs(param) < ds_splat(__builtin_inff()), param, ds_splat(0));
    if (c->decay == L2) v.grad = ds_vfma(ds_splat(c->l2), v.param, v.grad);
    v.first = ds_vfma(v.grad, ds_splat(-c->one_minus_beta1), v.first) * k->inverse_beta1;
    v.second = ds_vfma(v.grad * v.grad, ds_splat(-c->one_minus_beta2), v.second) * k->inverse_beta2;
    /* Rounding may leave less than nothing, of which the next step's root would be NaN. */
    v.second = ds_vmax(ds_splat(0), v.second);
    return v;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer rollback = {taken_back, 2};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, FOUND_INF)) {
        const inverse k = inverse_of_call(call);
        ds_step(call, begin, end, rollback, &k, DS_F32, DS_F32);
    }
}

DS_KERNEL(ds_adam_rollback, plan, run);
