/* Activation functions and their slopes, for CPU kernels; kinds are those of ops/activation. */
#ifndef DS_CPU_ACTIVATION_H
#define DS_CPU_ACTIVATION_H

#include "ds_cpu_math.h"

/* DS_HALF is added to those that have a form for results of 16 bits. */
enum { DS_IDENTITY, DS_RELU, DS_GELU, DS_GELU_TANH, DS_SILU, DS_TANH, DS_SIGMOID, DS_HALF };

typedef struct {
    ds_vec value, slope;
} ds_function;

/* gelu with tanh is x * sigmoid(2 u), which does not cancel as 1 + tanh(u) does. */
static const float DS_SQRT_8_PI = 1.5957691216f /* 2 * sqrt(2 / pi) */, DS_CUBE = 0.044715f;

/* The share of a normal distribution above x >= 0, over exp(-x^2 / 2): the slope of gelu has that factor,
 * too, so one exponential serves both. A minimax fit of erfc(x / sqrt(2)) / 2 up to 5, right to 1.2e-7
 * of the share itself, which beyond is less than 3e-7. */
DS_INLINE ds_vec ds_normal_tail(ds_vec x) {
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

/* exp(-x^2 / 2) for the square of x; 0 from |x| = 12.3 on, before it is no normal number: a product of those takes
 * the processor a hundred cycles. `half` is whether that of ds_vexp2_half will do. */
DS_INLINE ds_vec ds_bell(ds_vec square, int half) {
    ds_vec least = ds_splat(-110), power = square * -0x1.715476p-1f, above = ds_vmax(least, power);
    return ds_vselect(power < least, ds_splat(0), half ? ds_vexp2_half(above) : ds_vexp2(above));
}

/* f(x) and f'(x); what is not used is not computed. */
DS_INLINE ds_function ds_function_of(ds_vec x, int kind) {
    const ds_vec one = ds_splat(1), zero = ds_splat(0);
    switch (kind) {
    case DS_RELU: /* NaN stays, and passes gradients */
        return (ds_function){ds_vselect(x <= zero, zero, x), ds_vselect(x <= zero, zero, one)};
    case DS_GELU: {
        ds_vec bell = ds_bell(x * x, 0), tail = ds_normal_tail(ds_vabs(x)) * bell;
        ds_vec below = ds_vsigned(x, tail, one - tail);
        return (ds_function){x * below, ds_vfma(x, bell * 0.39894228040f, below)};
    }
    case DS_GELU_TANH: {
        ds_vec square = x * x;
        ds_vec s = ds_vsigmoid(x * ds_vfma(square, ds_splat(DS_SQRT_8_PI * DS_CUBE), ds_splat(DS_SQRT_8_PI)));
        /* Beyond 12 the slope is 0 or 1, and the square may be infinite. */
        ds_vec near = ds_vmin(ds_splat(144), square);
        ds_vec inner = ds_vfma(near, ds_splat(3 * DS_SQRT_8_PI * DS_CUBE), ds_splat(DS_SQRT_8_PI));
        return (ds_function){x * s, ds_vfma(x * s * (one - s), inner, s)};
    }
    case DS_SILU: {
        ds_vec s = ds_vsigmoid(x);
        return (ds_function){x * s, s * ds_vfma(x, one - s, one)};
    }
    case DS_TANH: {
        ds_vec y = ds_vtanh(x);
        return (ds_function){y, ds_vfma(-y, y, one)};
    }
    case DS_SIGMOID: {
        ds_vec s = ds_vsigmoid(x);
        return (ds_function){s, s * (one - s)};
    }
    default: return (ds_function){x, one};
    }
}

/* The share of a normal distribution above x >= 0. Its logarithm is fitted, so that what is right is a
 * share of it. */
DS_INLINE ds_vec ds_half_normal_tail(ds_vec x) {
    ds_vec p = ds_vfma(ds_splat(-3.1135272e-4f), x, ds_splat(5.7379184e-3f));
    p = ds_vfma(p, x, ds_splat(-4.7933124e-2f));
    p = ds_vfma(p, x, ds_splat(-4.6454352e-1f));
    p = ds_vfma(p, x, ds_splat(-1.1489660f));
    return ds_vexp2_half(ds_vfma(p, x, ds_splat(-1.0001411f)));
}

/* The slope of gelu at -x for x >= 0, over exp(-x^2 / 2) and over what x lacks to where it is 0. */
DS_INLINE ds_vec ds_half_gelu_slope(ds_vec x) {
    ds_vec p = ds_vfma(ds_splat(6.4052839e-5f), x, ds_splat(-1.1105932e-3f));
    p = ds_vfma(p, x, ds_splat(8.1051237e-3f));
    p = ds_vfma(p, x, ds_splat(-3.3343095e-2f));
    p = ds_vfma(p, x, ds_splat(8.9368504e-2f));
    p = ds_vfma(p, x, ds_splat(-1.7470080e-1f));
    return ds_vfma(p, x, ds_splat(6.6499850e-1f));
}

/* 1 / (1 + 2^power) */
DS_INLINE ds_vec ds_half_share(ds_vec power) { return ds_vinverse_half(1 + ds_vexp2_half(ds_beside_one(power))); }

/* s + s (1 - s) x inner for s = 1 / (1 + 2^power), as s^2 (1 + 2^power + 2^power x inner): what is near 0
 * lacks nothing but what s^2 does. */
DS_INLINE ds_vec ds_half_slope(ds_vec power, ds_vec x, ds_vec inner) {
    ds_vec none = ds_splat(0), e = ds_vselect(power < ds_splat(-100), none, ds_vexp2(ds_beside_one(power)));
    ds_vec s = ds_vinverse_half(1 + e);
    return s * (s * ds_vfma(e * x, inner, 1 + e));
}

/* f(x) and f'(x) as results of 16 bits need them, in two thirds of the operations. The largest errors found
 * over all arguments of f16 and bf16, against f64, are 2^-12.3 of the result, and 4e-8 of what is below 1e-4.
 * At -infinity, where all else is NaN as in PyTorch, the slopes of gelu_tanh and silu are within 1e-19 of their limit, 0. */
DS_INLINE ds_function ds_half_function_of(ds_vec x, int kind) {
    const ds_vec one = ds_splat(1);
    switch (kind) {
    case DS_GELU: {
        ds_vec most = ds_splat(11.5f), size = ds_vmin(most, ds_vabs(x)); /* beyond, bell and tail are 0 */
        ds_vec tail = ds_vselect(ds_vabs(x) > most, ds_splat(0), ds_half_normal_tail(size));
        ds_vec bell = ds_bell(x * x, 1);
        ds_vec below = bell * (ds_splat(0.75179154f) - ds_vabs(x)) * ds_half_gelu_slope(size);
        ds_vec factor = ds_vabs(ds_vmin(ds_splat(16), x)); /* infinite, as x, only where the tail is all there is */
        return (ds_function){ds_vfma(-factor, tail, ds_vmax(ds_splat(0), x)),
                          ds_vsigned(x, below, one - below)};
    }
    case DS_GELU_TANH: {
        const float scale = -0x1.715476p+0f * DS_SQRT_8_PI;
        ds_vec power = x * ds_vfma(x * x, ds_splat(scale * DS_CUBE), ds_splat(scale));
        /* Beyond 8 the slope is 0 or 1, and before that nothing is infinite. */
        ds_vec near = ds_vmax(ds_splat(-8), x), square = ds_vmin(ds_splat(64), x * x);
        ds_vec inner = ds_vfma(square, ds_splat(3 * DS_SQRT_8_PI * DS_CUBE), ds_splat(DS_SQRT_8_PI));
        ds_vec near_power = near * ds_vfma(square, ds_splat(scale * DS_CUBE), ds_splat(scale));
        return (ds_function){x * ds_half_share(power), ds_half_slope(near_power, near, inner)};
    }
    case DS_SILU: {
        const float scale = -0x1.715476p+0f;
        ds_vec near = ds_vmax(ds_splat(-64), x); /* below, the slope is 0 and the power may be infinite */
        return (ds_function){x * ds_half_share(x * scale), ds_half_slope(near * scale, near, one)};
    }
    default: return ds_function_of(x, kind);
    }
}

/* What a kind is for results of dtype `t`. */
DS_INLINE int64_t ds_kind_for(int64_t kind, uint32_t t) {
    return t != DS_F32 && kind >= DS_GELU && kind <= DS_SILU ? DS_HALF + kind : kind;
}

DS_INLINE ds_function ds_function_for(ds_vec x, int kind) {
    return kind > DS_HALF ? ds_half_function_of(x, kind - DS_HALF) : ds_function_of(x, kind);
}

/* `DS_WITH_KIND(k, kind, statement)`: the statement with `k` a constant. */
#define DS_WITH_KIND(k, kind, statement)                              \
    switch (kind) {                                                \
    case DS_IDENTITY: DS_WITH(k, DS_IDENTITY, statement)                 \
    case DS_RELU: DS_WITH(k, DS_RELU, statement)                         \
    case DS_GELU: DS_WITH(k, DS_GELU, statement)                         \
    case DS_GELU_TANH: DS_WITH(k, DS_GELU_TANH, statement)               \
    case DS_SILU: DS_WITH(k, DS_SILU, statement)                         \
    case DS_TANH: DS_WITH(k, DS_TANH, statement)                         \
    case DS_SIGMOID: DS_WITH(k, DS_SIGMOID, statement)                   \
    case DS_HALF + DS_GELU: DS_WITH(k, DS_HALF + DS_GELU, statement)           \
    case DS_HALF + DS_GELU_TANH: DS_WITH(k, DS_HALF + DS_GELU_TANH, statement) \
    case DS_HALF + DS_SILU: DS_WITH(k, DS_HALF + DS_SILU, statement)           \
    }

#endif
