/* The functions of `kind` and their slopes. */
#ifndef DS_ACTIVATION_FUNCTIONS_H
#define DS_ACTIVATION_FUNCTIONS_H

#include "ds_cpu_elementwise.h"
#include "ds_cpu_math.h"

enum { IDENTITY, RELU, GELU, GELU_TANH, SILU, TANH, SIGMOID };

typedef struct {
    ds_vec value, slope;
} function;

/* gelu with tanh is x * sigmoid(2 u), which does not cancel as 1 + tanh(u) does. */
static const float SQRT_8_PI = 1.5957691216f /* 2 * sqrt(2 / pi) */, CUBE = 0.044715f;

/* f(x) and f'(x); what is not used is not computed. */
DS_INLINE function function_of(ds_vec x, int kind) {
    const ds_vec one = ds_splat(1), zero = ds_splat(0);
    switch (kind) {
    case RELU: /* NaN stays, and passes gradients */
        return (function){ds_vselect(x <= zero, zero, x), ds_vselect(x <= zero, zero, one)};
    case GELU: {
        ds_vec half = ds_vfma(ds_verf(x * 0.70710678118f), ds_splat(0.5f), ds_splat(0.5f));
        ds_vec density = ds_vexp(x * x * -0.5f) * 0.39894228040f;
        return (function){x * half, ds_vfma(x, density, half)};
    }
    case GELU_TANH: {
        ds_vec square = x * x;
        ds_vec s = ds_vsigmoid(x * ds_vfma(square, ds_splat(SQRT_8_PI * CUBE), ds_splat(SQRT_8_PI)));
        /* Beyond 12 the slope is 0 or 1, and the square may be infinite. */
        ds_vec near = ds_vmin(ds_splat(144), square);
        ds_vec inner = ds_vfma(near, ds_splat(3 * SQRT_8_PI * CUBE), ds_splat(SQRT_8_PI));
        return (function){x * s, ds_vfma(x * s * (one - s), inner, s)};
    }
    case SILU: {
        ds_vec s = ds_vsigmoid(x);
        return (function){x * s, s * ds_vfma(x, one - s, one)};
    }
    case TANH: {
        ds_vec y = ds_vtanh(x);
        return (function){y, ds_vfma(-y, y, one)};
    }
    case SIGMOID: {
        ds_vec s = ds_vsigmoid(x);
        return (function){s, s * (one - s)};
    }
    default: return (function){x, one};
    }
}

/* `WITH_KIND(k, kind, body(..., k))`: the statement with `k` a constant. */
#define WITH_KIND(k, kind, statement)            \
    switch (kind) {                              \
    case IDENTITY: DS_WITH(k, IDENTITY, statement) \
    case RELU: DS_WITH(k, RELU, statement)       \
    case GELU: DS_WITH(k, GELU, statement)       \
    case GELU_TANH: DS_WITH(k, GELU_TANH, statement) \
    case SILU: DS_WITH(k, SILU, statement)       \
    case TANH: DS_WITH(k, TANH, statement)       \
    case SIGMOID: DS_WITH(k, SIGMOID, statement) \
    }

#endif
