/* One step of stochastic gradient descent over a list of parameters, in place, on a CPU.
 *
 * Limit: memory. Every element of params and, with momentum, of the buffer is read and written, of
 * grads read: 12 bytes an element in f32 without momentum, 20 with it.
 */
#include "ds_cpu_step.h"

/* sgd_step(params, grads, found_inf?; lr, weight_decay). */
enum { PLAIN_FOUND_INF = 2 };
enum { PLAIN_LR, PLAIN_WEIGHT_DECAY };

/* sgd_momentum_step(params, grads, momentum_buffer, found_inf?; lr, momentum, dampening, weight_decay,
 * step; nesterov). */
enum { FOUND_INF = 3 };
enum { LR, MOMENTUM, DAMPENING, WEIGHT_DECAY, STEP };
enum { NESTEROV };

static void plan(const ds_call *call, ds_plan *out) { ds_list_plan(call, DS_PARAMS, out); }

typedef struct constants {
    float step_size; /* -lr */
    float weight_decay;
    float momentum;
    float undamped; /* 1 - dampening */
    int first;      /* the first gradient is the buffer, whatever that held, and not dampened */
    int nesterov;
} constants;

DS_INLINE ds_vec decayed(const constants *k, ds_lanes v) {
    /* Without decay nothing of the parameter joins, not even a NaN. */
    return k->weight_decay == 0 ? v.grad : ds_vfma(ds_splat(k->weight_decay), v.param, v.grad);
}

DS_INLINE ds_lanes plain(const void *of_call, ds_lanes v) {
    const constants *k = of_call;
    v.param = ds_vfma(ds_splat(k->step_size), decayed(k, v), v.param);
    return v;
}

DS_INLINE ds_lanes with_momentum(const void *of_call, ds_lanes v) {
    const constants *k = of_call;
    ds_vec grad = decayed(k, v), momentum = ds_splat(k->momentum);
    v.first = k->first ? grad : ds_vfma(ds_splat(k->undamped), grad, v.first * momentum);
    ds_vec update = k->nesterov ? ds_vfma(momentum, v.first, grad) : v.first;
    v.param = ds_vfma(ds_splat(k->step_size), update, v.param);
    return v;
}

static void plain_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer sgd = {plain, 0};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, PLAIN_FOUND_INF)) {
        const constants k = {
            .step_size = (float)-call->scalars[PLAIN_LR].f,
            .weight_decay = (float)call->scalars[PLAIN_WEIGHT_DECAY].f,
        };
        DS_WITH_FLOAT(t, ds_arg_tensor(call, DS_PARAMS, 0)->dtype, ds_step(call, begin, end, sgd, &k, t, t));
    }
}

static void momentum_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_optimizer sgd = {with_momentum, 1};
    if (phase == 0) {
        ds_list_count(call, DS_PARAMS);
    } else if (!ds_list_skips(call, FOUND_INF)) {
        const ds_value *s = call->scalars;
        const constants k = {
            .step_size = (float)-s[LR].f,
            .weight_decay = (float)s[WEIGHT_DECAY].f,
            .momentum = (float)s[MOMENTUM].f,
            .undamped = (float)(1 - s[DAMPENING].f),
            .first = s[STEP].i == 1,
            .nesterov = (int)call->attributes[NESTEROV].i,
        };
        DS_WITH_PAIR(p, m, call, ds_step(call, begin, end, sgd, &k, p, m));
    }
}

DS_KERNEL(ds_sgd_step, plan, plain_run);
DS_KERNEL(ds_sgd_momentum_step, plan, momentum_run);
