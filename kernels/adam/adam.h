/* What a step of Adam and its inverse share. */
#ifndef DS_ADAM_H
#define DS_ADAM_H

#include "ds_cpu_step.h"

/* (params, grads, exp_avg, exp_avg_sq, found_inf?; lr, beta1, beta2, eps, weight_decay, step; adamw,
 * bias_correction); the moments are the first and the second state. */
enum { FOUND_INF = 4 };
enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY, STEP };
enum { ADAMW, BIAS_CORRECTION };

static void plan(const ds_call *call, ds_plan *out) { ds_list_plan(call, DS_PARAMS, out); }

/* The scalars of a step as the loop wants them; DeepSpeed's order of operations. */
typedef struct constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float eps;
    float step_size;    /* -lr / (1 - beta1^step) */
    float inverse_root; /* 1 / sqrt(1 - beta2^step) */
    enum decay { NO_DECAY, L2, DECOUPLED } decay;
    float l2;        /* weight decay that joins the gradient */
    float decoupled; /* -lr * weight decay, that shrinks the parameter itself */
} constants;

static double power(double base, int64_t exponent) {
    double result = 1;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2) result *= base;
    return result;
}

/* Of the scalars; in f64, where 1 - beta does not cancel. */
static constants constants_of(const ds_call *call) {
    const ds_value *s = call->scalars;
    double correction1 = 1, correction2 = 1;
    if (call->attributes[BIAS_CORRECTION].i) {
        correction1 = 1 - power(s[BETA1].f, s[STEP].i);
        correction2 = 1 - power(s[BETA2].f, s[STEP].i);
    }
    return (constants){
        .beta1 = (float)s[BETA1].f,
        .beta2 = (float)s[BETA2].f,
        .one_minus_beta1 = (float)(1 - s[BETA1].f),
        .one_minus_beta2 = (float)(1 - s[BETA2].f),
        .eps = (float)s[EPS].f,
        .step_size = (float)(-s[LR].f / correction1),
        .inverse_root = (float)(1 / ds_sqrt(correction2)),
        .decay = s[WEIGHT_DECAY].f == 0 ? NO_DECAY : call->attributes[ADAMW].i ? DECOUPLED : L2,
        .l2 = (float)s[WEIGHT_DECAY].f,
        .decoupled = (float)(-s[LR].f * s[WEIGHT_DECAY].f),
    };
}

#endif
