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

/* The share of a normal distribution above x >= 0, over exp(-x^2 / 2): the slope of gelu has that factor,
 * too, so one exponential serves both. A minimax fit of erfc(x / sqrt(2)) / 2 up to 5, right to 1.2e-7
 * of the share itself, which beyond is less than 3e-7. */
DS_INLINE ds_vec normal_tail(ds_vec x) {
    x = ds_vmin(ds_splat(5), x);
    ds_vec square = x * x; /* even and odd powers apart: two chains that wait for each other only at the end */
    ds_vec even = ds_vfma(ds_splat(1.28400009e-6f), square, ds_splat(2.96661678e-4f));
    ds_vec odd = ds_vfma(ds_splat(-2.92084743e-5f), square, ds_splat(-1.80711696e-3f));
    even = ds_vfma(even, square, ds_splat(7.55476271e-3f));
    odd = ds_vfma(odd, square, ds_splat(-2.37805583e-2f));
    even = ds_vfma(even, square, ds_splat(6.07161953e-2f));
    odd = ds_vfma(odd, square, ds_splat(-1.32312212e-1f));
    even = ds_vfma(even, square, ds_splat(2.49871077e-1f));
    odd = ds_vfma(odd, square, ds_splat(-3.98932603e-1f));
    even = ds_vfma(even, square, ds_splat(4.9999988e-1f));
    return ds_vfma(odd, x, even);
}

/* f(x) and f'(x); what is not used is not computed. */
DS_INLINE function function_of(ds_vec x, int kind) {
    const ds_vec one = ds_splat(1), zero = ds_splat(0);
    switch (kind) {
    case RELU: /* NaN stays, and passes gradients */
        return (function){ds_vselect(x <= zero, zero, x), ds_vselect(x <= zero, zero, one)};
    case GELU: {
        ds_vec bell = ds_vexp2(x * x * -0x1.715476p-1f), tail = normal_tail(ds_vabs(x)) * bell;
        ds_vec below = ds_vsigned(x, tail, one - tail);
        return (function){x * below, ds_vfma(x, bell * 0.39894228040f, below)};
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
