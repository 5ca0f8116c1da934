/* What a step of Adagrad does to a vector, dense or sparse. */
#ifndef DS_ADAGRAD_H
#define DS_ADAGRAD_H

#include "ds_cpu_step.h"

/* The launch scalars of both. */
enum { LR, EPS, WEIGHT_DECAY };

typedef struct constants {
    float step_size; /* -lr */
    float eps;
    float weight_decay;
} constants;

static constants constants_of(const ds_call *call) {
    const ds_value *s = call->scalars;
    return (constants){(float)-s[LR].f, (float)s[EPS].f, (float)s[WEIGHT_DECAY].f};
}

DS_INLINE ds_lanes updated(const void *of_call, ds_lanes v) {
    const constants *k = of_call;
    /* Without decay nothing of the parameter joins, not even a NaN. */
    if (k->weight_decay != 0) v.grad = ds_vfma(ds_splat(k->weight_decay), v.param, v.grad);
    v.first = ds_vfma(v.grad, v.grad, v.first);
    ds_vec root = ds_vsqrt(v.first) + k->eps;
    v.param = ds_vfma(ds_vdiv(v.grad, root), ds_splat(k->step_size), v.param);
    return v;
}

#endif
