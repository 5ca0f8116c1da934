/* The functions of `kind` and their slopes. */
#ifndef DS_ACTIVATION_FUNCTIONS_H
#define DS_ACTIVATION_FUNCTIONS_H

#include "ds_cpu_elementwise.h"
#include "ds_cpu_math.h"

enum { IDENTITY, RELU, GELU, GELU_TANH, SILU, TANH, SIGMOID, HALF /* added: for results of 16 bits */ };

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

/* The share of a normal distribution above x >= 0. Its logarithm is fitted, so that what is right is a
 * share of it. */
DS_INLINE ds_vec half_normal_tail(ds_vec x) {
    ds_vec p = ds_vfma(ds_splat(-3.1135272e-4f), x, ds_splat(5.7379184e-3f));
    p = ds_vfma(p, x, ds_splat(-4.7933124e-2f));
    p = ds_vfma(p, x, ds_splat(-4.6454352e-1f));
    p = ds_vfma(p, x, ds_splat(-1.1489660f));
    return ds_vexp2_half(ds_vfma(p, x, ds_splat(-1.0001411f)));
}

/* The slope of gelu at -x for x >= 0, over exp(-x^2 / 2) and over what x lacks to where it is 0. */
DS_INLINE ds_vec half_gelu_slope(ds_vec x) {
    ds_vec p = ds_vfma(ds_splat(6.4052839e-5f), x, ds_splat(-1.1105932e-3f));
    p = ds_vfma(p, x, ds_splat(8.1051237e-3f));
    p = ds_vfma(p, x, ds_splat(-3.3343095e-2f));
    p = ds_vfma(p, x, ds_splat(8.9368504e-2f));
    p = ds_vfma(p, x, ds_splat(-1.7470080e-1f));
    return ds_vfma(p, x, ds_splat(6.6499850e-1f));
}

/* 1 / (1 + 2^power) */
DS_INLINE ds_vec half_share(ds_vec power) { return ds_vinverse_half(1 + ds_vexp2_half(power)); }

/* s + s (1 - s) x inner for s = 1 / (1 + 2^power), as s^2 (1 + 2^power + 2^power x inner): what is near 0
 * lacks nothing but what s^2 does. */
DS_INLINE ds_vec half_slope(ds_vec power, ds_vec x, ds_vec inner) {
    ds_vec e = ds_vexp2(power), s = ds_vinverse_half(1 + e);
    return s * (s * ds_vfma(e * x, inner, 1 + e));
}

/* f(x) and f'(x) as results of 16 bits need them, in two thirds of the operations. The largest errors found
 * over all arguments of f16 and bf16, against f64, are 2^-12.3 of the result, and 4e-8 of what is below 1e-4.
 * At -infinity, where all else is NaN as in PyTorch, the slopes of gelu_tanh and silu are within 1e-19 of their limit, 0. */
DS_INLINE function half_function_of(ds_vec x, int kind) {
    const ds_vec one = ds_splat(1);
    switch (kind) {
    case GELU: {
        ds_vec size = ds_vmin(ds_splat(16), ds_vabs(x)); /* beyond, what f32 holds of a tail is 0 */
        ds_vec bell = ds_vexp2_half(size * size * -0x1.715476p-1f);
        ds_vec below = bell * (ds_splat(0.75179154f) - ds_vabs(x)) * half_gelu_slope(size);
        ds_vec factor = ds_vabs(ds_vmin(ds_splat(16), x)); /* infinite, as x, only where the tail is all there is */
        return (function){ds_vfma(-factor, half_normal_tail(size), ds_vmax(ds_splat(0), x)),
                          ds_vsigned(x, below, one - below)};
    }
    case GELU_TANH: {
        const float scale = -0x1.715476p+0f * SQRT_8_PI;
        ds_vec power = x * ds_vfma(x * x, ds_splat(scale * CUBE), ds_splat(scale));
        /* Beyond 8 the slope is 0 or 1, and before that nothing is infinite. */
        ds_vec near = ds_vmax(ds_splat(-8), x), square = ds_vmin(ds_splat(64), x * x);
        ds_vec inner = ds_vfma(square, ds_splat(3 * SQRT_8_PI * CUBE), ds_splat(SQRT_8_PI));
        ds_vec near_power = near * ds_vfma(square, ds_splat(scale * CUBE), ds_splat(scale));
        return (function){x * half_share(power), half_slope(near_power, near, inner)};
    }
    case SILU: {
        const float scale = -0x1.715476p+0f;
        ds_vec near = ds_vmax(ds_splat(-64), x); /* below, the slope is 0 and the power may be infinite */
        return (function){x * half_share(x * scale), half_slope(near * scale, near, one)};
    }
    default: return function_of(x, kind);
    }
}

/* What a call's kind is for results of dtype `t`. */
DS_INLINE int64_t kind_for(const ds_call *call, uint32_t t) {
    int64_t kind = call->attributes[0].i;
    return t != DS_F32 && kind >= GELU && kind <= SILU ? HALF + kind : kind;
}

DS_INLINE function function_for(ds_vec x, int kind) {
    return kind > HALF ? half_function_of(x, kind - HALF) : function_of(x, kind);
}

/* `WITH_KIND(k, kind, statement)`: the statement with `k` a constant. */
#define WITH_KIND(k, kind, statement)                              \
    switch (kind) {                                                \
    case IDENTITY: DS_WITH(k, IDENTITY, statement)                 \
    case RELU: DS_WITH(k, RELU, statement)                         \
    case GELU: DS_WITH(k, GELU, statement)                         \
    case GELU_TANH: DS_WITH(k, GELU_TANH, statement)               \
    case SILU: DS_WITH(k, SILU, statement)                         \
    case TANH: DS_WITH(k, TANH, statement)                         \
    case SIGMOID: DS_WITH(k, SIGMOID, statement)                   \
    case HALF + GELU: DS_WITH(k, HALF + GELU, statement)           \
    case HALF + GELU_TANH: DS_WITH(k, HALF + GELU_TANH, statement) \
    case HALF + SILU: DS_WITH(k, HALF + SILU, statement)           \
    }

/* The same for each vector `v` of a tile. */
#define EACH_OF(v, k, kind, statement) \
    WITH_KIND(k, kind, for (int v = 0; v < DS_TILE_VECTORS; v++) statement)

#endif
