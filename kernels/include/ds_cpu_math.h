/* Elementary functions of f32 vectors for CPU kernels, without a library.
 *
 * Errors are the largest found against f64 over every third of the 2^32 arguments (of ds_vexp2 and
 * ds_vsigmoid every 37th), in units of the last place of the result where that is no denormal; with
 * AVX-512, AVX2 and neither.
 *
 * | function | error | at the edges |
 * |---|---|---|
 * | ds_vexp | 1.1 | infinity above 88.7, denormals and then 0 below -87.3 |
 * | ds_vexp2 | 3.1 | infinity from 128 on, denormals and then 0 below -126 |
 * | ds_vlog | 0.9 | -infinity at 0, NaN below; denormals are arguments like others |
 * | ds_vtanh | 1.4 | +-1 |
 * | ds_verf | 1.6 | +-1 |
 * | ds_vsigmoid | 1.7 above 0, 3 - 1.2 x below | 1 above, 0 below -87.3 |
 *
 * NaN gives NaN. Polynomials of exp, log and tanh are those of Cephes (Moshier, expf.c, logf.c,
 * tanhf.c); those of erf and 2^x are minimax fits of erf(x)/x, of log(1 - erf(x)) and of 2^x.
 */
#ifndef DS_CPU_MATH_H
#define DS_CPU_MATH_H

#include "ds_cpu_simd.h"

typedef int32_t ds_vec_i32 __attribute__((vector_size(DS_LANES * 4)));

/* a where the mask has ones, b where it has zeros. */
DS_INLINE ds_vec ds_vselect(ds_vec_i32 mask, ds_vec a, ds_vec b) {
    return (ds_vec)((mask & (ds_vec_i32)a) | (~mask & (ds_vec_i32)b));
}

DS_INLINE ds_vec ds_vabs(ds_vec a) { return (ds_vec)((ds_vec_u32)a & 0x7fffffff); }

/* The magnitude of `a` with the sign of `sign`. */
DS_INLINE ds_vec ds_vcopysign(ds_vec a, ds_vec sign) {
    return (ds_vec)(((ds_vec_u32)a & 0x7fffffff) | ((ds_vec_u32)sign & 0x80000000));
}

/* a where `sign` has its sign bit, b where it does not. */
DS_INLINE ds_vec ds_vsigned(ds_vec sign, ds_vec a, ds_vec b) {
#if DS_LANES == 16 && defined(__AVX512DQ__)
    return (ds_vec)_mm512_mask_mov_ps((__m512)b, _mm512_movepi32_mask((__m512i)sign), (__m512)a);
#elif DS_LANES == 8
    return (ds_vec)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)sign);
#else
    return ds_vselect((ds_vec_i32)sign < 0, a, b);
#endif
}

/* The greater, and the lesser; `b` where one of them is a NaN. */
DS_INLINE ds_vec ds_vmax(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    return (ds_vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif DS_LANES == 8
    return (ds_vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return ds_vselect(a > b, a, b);
#endif
}

DS_INLINE ds_vec ds_vmin(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    return (ds_vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif DS_LANES == 8
    return (ds_vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return ds_vselect(a < b, a, b);
#endif
}

/* The greater, and the lesser; NaN where one of them is. */
DS_INLINE ds_vec ds_vmaximum(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    return (ds_vec)_mm512_mask_max_ps((__m512)a, _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q), (__m512)a, (__m512)b);
#else
    return ds_vselect(a != a, a, ds_vmax(a, b));
#endif
}

DS_INLINE ds_vec ds_vminimum(ds_vec a, ds_vec b) {
#if DS_LANES == 16
    return (ds_vec)_mm512_mask_min_ps((__m512)a, _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_ORD_Q), (__m512)a, (__m512)b);
#else
    return ds_vselect(a != a, a, ds_vmin(a, b));
#endif
}

/* p * 2^n for whole n from -150 to 128. */
DS_INLINE ds_vec ds_vscale(ds_vec p, ds_vec n) {
#if DS_LANES == 16
    return (ds_vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else /* in two steps, each within the exponents of normal numbers */
    ds_vec_i32 whole = __builtin_convertvector(n, ds_vec_i32), half = whole >> 1;
    return p * (ds_vec)((half + 127) << 23) * (ds_vec)((whole - half + 127) << 23);
#endif
}

DS_INLINE ds_vec ds_vexp(ds_vec x) {
    const ds_vec round = ds_splat(0x1.8p23f); /* added and taken away, it leaves a whole number */
    x = ds_vmin(ds_splat(89), ds_vmax(ds_splat(-104), x));
    ds_vec n = ds_vfma(x, ds_splat(0x1.715476p+0f), round) - round;
    ds_vec r = ds_vfma(n, ds_splat(-0x1.63p-1f), x); /* log 2 in two parts, the first one short */
    r = ds_vfma(n, ds_splat(0x1.bd0106p-13f), r);
    ds_vec p = ds_vfma(ds_splat(1.9875691500e-4f), r, ds_splat(1.3981999507e-3f));
    p = ds_vfma(p, r, ds_splat(8.3334519073e-3f));
    p = ds_vfma(p, r, ds_splat(4.1665795894e-2f));
    p = ds_vfma(p, r, ds_splat(1.6666665459e-1f));
    p = ds_vfma(p, r, ds_splat(5.0000001201e-1f));
    return ds_vscale(ds_vfma(p, r * r, r) + 1, n);
}

/* 2^x. With AVX-512 one instruction takes what is above a whole number from x and one scales by that
 * number, infinities included. The polynomials are minimax fits that are 1 at 0. */
DS_INLINE ds_vec ds_vexp2(ds_vec x) {
#if DS_LANES == 16 && defined(__AVX512DQ__)
    ds_vec f = (ds_vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF); /* from 0 to 1 */
    ds_vec p = ds_vfma(ds_splat(0x1.e9751ap-10f), f, ds_splat(0x1.27784cp-7f));
    p = ds_vfma(p, f, ds_splat(0x1.c91ce8p-5f));
    p = ds_vfma(p, f, ds_splat(0x1.ebdb56p-3f));
    p = ds_vfma(p, f, ds_splat(0x1.62e4bap-1f));
    return ds_vscale(ds_vfma(p, f, ds_splat(1)), x);
#else
    const ds_vec round = ds_splat(0x1.8p23f); /* added and taken away, it leaves a whole number */
    x = ds_vmin(ds_splat(129), ds_vmax(ds_splat(-150), x));
    ds_vec n = (x + round) - round, f = x - n; /* from -1/2 to 1/2 */
    ds_vec p = ds_vfma(ds_splat(0x1.5bba14p-10f), f, ds_splat(0x1.3cea88p-7f));
    p = ds_vfma(p, f, ds_splat(0x1.c6b752p-5f));
    p = ds_vfma(p, f, ds_splat(0x1.ebf9bcp-3f));
    p = ds_vfma(p, f, ds_splat(0x1.62e42ap-1f));
    return ds_vscale(ds_vfma(p, f, ds_splat(1)), n);
#endif
}

/* With AVX-512 instructions give m from 3/4 to 3/2 and e of x = m * 2^e, denormals, infinities and NaN as
 * they should be, and NaN below 0. Both parts of log 2 are positive, so that no two infinities meet. */
DS_INLINE ds_vec ds_vlog(ds_vec x) {
#if DS_LANES == 16
    __m512 m = _mm512_getmant_ps((__m512)x, _MM_MANT_NORM_p75_1p5, (_MM_MANTISSA_SIGN_ENUM)(_MM_MANT_SIGN_zero | _MM_MANT_SIGN_nan));
    ds_vec e = (ds_vec)_mm512_sub_ps(_mm512_getexp_ps((__m512)x), _mm512_getexp_ps(m)), f = (ds_vec)m - 1, z = f * f;
    ds_vec p = ds_vfma(ds_splat(-0x1.7140bcp-5f), f, ds_splat(0x1.ac90cp-4f));
    p = ds_vfma(p, f, ds_splat(-0x1.0d8a8ep-3f));
    p = ds_vfma(p, f, ds_splat(0x1.28847cp-3f));
    p = ds_vfma(p, f, ds_splat(-0x1.54efdcp-3f));
    p = ds_vfma(p, f, ds_splat(0x1.9969bp-3f));
    p = ds_vfma(p, f, ds_splat(-0x1.00004p-2f));
    p = ds_vfma(p, f, ds_splat(0x1.5555a4p-2f));
    p = ds_vfma(e, ds_splat(0x1.7f7d1cp-20f), p * f * z);
    return ds_vfma(e, ds_splat(0x1.62e4p-1f), f + ds_vfma(z, ds_splat(-0.5f), p));
#else
    ds_vec_i32 denormal = x < ds_splat(0x1p-126f);
    ds_vec scaled = ds_vselect(denormal, x * 0x1p23f, x);
    /* x = m * 2^e with m from sqrt(1/2) to sqrt(2) */
    ds_vec_i32 bits = (ds_vec_i32)scaled + (0x3f800000 - 0x3f3504f3);
    ds_vec e = __builtin_convertvector((bits >> 23) - 127 - (denormal & 23), ds_vec);
    ds_vec f = (ds_vec)((bits & 0x7fffff) + 0x3f3504f3) - 1, z = f * f;
    ds_vec p = ds_vfma(ds_splat(7.0376836292e-2f), f, ds_splat(-1.1514610310e-1f));
    p = ds_vfma(p, f, ds_splat(1.1676998740e-1f));
    p = ds_vfma(p, f, ds_splat(-1.2420140846e-1f));
    p = ds_vfma(p, f, ds_splat(1.4249322787e-1f));
    p = ds_vfma(p, f, ds_splat(-1.6668057665e-1f));
    p = ds_vfma(p, f, ds_splat(2.0000714765e-1f));
    p = ds_vfma(p, f, ds_splat(-2.4999993993e-1f));
    p = ds_vfma(p, f, ds_splat(3.3333331174e-1f));
    p = ds_vfma(e, ds_splat(-2.12194440e-4f), p * f * z);
    ds_vec y = ds_vfma(e, ds_splat(0.693359375f), f + ds_vfma(z, ds_splat(-0.5f), p));
    y = ds_vselect(x < ds_splat(__builtin_inff()), y, x); /* infinity and NaN */
    y = ds_vselect(x == 0, ds_splat(-__builtin_inff()), y);
    return ds_vselect(x < 0, ds_splat(__builtin_nanf("")), y);
#endif
}

DS_INLINE ds_vec ds_vtanh(ds_vec x) {
    ds_vec size = ds_vabs(x), z = x * x;
    ds_vec p = ds_vfma(ds_splat(-5.70498872745e-3f), z, ds_splat(2.06390887954e-2f));
    p = ds_vfma(p, z, ds_splat(-5.37397155531e-2f));
    p = ds_vfma(p, z, ds_splat(1.33314422036e-1f));
    p = ds_vfma(p, z, ds_splat(-3.33332819422e-1f));
    ds_vec small = ds_vfma(p * z, x, x);
    ds_vec large = 1 - 2 / (ds_vexp(size + size) + 1);
    return ds_vselect(size < ds_splat(0.625f), small, ds_vcopysign(large, x));
}

DS_INLINE ds_vec ds_verf(ds_vec x) {
    ds_vec size = ds_vabs(x), z = x * x;
    ds_vec p = ds_vfma(ds_splat(-5.919416e-4f), z, ds_splat(4.97913e-3f));
    p = ds_vfma(p, z, ds_splat(-2.6757035e-2f));
    p = ds_vfma(p, z, ds_splat(1.1281552e-1f));
    p = ds_vfma(p, z, ds_splat(-3.7612468e-1f));
    ds_vec small = ds_vfma(x, ds_vfma(p, z, ds_splat(1.2837916e-1f)), x);
    ds_vec t = ds_vmin(ds_splat(4), size);
    ds_vec q = ds_vfma(ds_splat(1.9477865e-4f), t, ds_splat(-3.0318287e-3f));
    q = ds_vfma(q, t, ds_splat(2.218142e-2f));
    q = ds_vfma(q, t, ds_splat(-1.0383697e-1f));
    q = ds_vfma(q, t, ds_splat(-6.3729036e-1f));
    q = ds_vfma(q, t, ds_splat(-1.1276113f));
    q = ds_vfma(q, t, ds_splat(-2.1130404e-4f));
    ds_vec large = ds_vcopysign(1 - ds_vexp(q), x);
    return ds_vselect(size < ds_splat(0.9375f), small, large);
}

/* The power of a 2^power that is added to 1. Where that is too small to tell it stays a normal number: a sum
 * with any other takes the processor a hundred cycles. */
DS_INLINE ds_vec ds_beside_one(ds_vec power) { return ds_vmax(ds_splat(-100), power); }

/* 1 / (1 + exp(-x)). With AVX-512 a division takes as long as all the rest; an approximate inverse and
 * one correction do not. */
DS_INLINE ds_vec ds_vsigmoid(ds_vec x) {
    ds_vec power = x * -0x1.715476p+0f, d = 1 + ds_vexp2(ds_beside_one(power));
#if DS_LANES == 16
    __m512 inverse = _mm512_rcp14_ps((__m512)d), error = _mm512_fnmadd_ps((__m512)d, inverse, _mm512_set1_ps(1));
    __mmask16 is_some = _mm512_cmp_ps_mask((__m512)power, _mm512_set1_ps(126), _CMP_NGE_UQ); /* NaN is */
    return (ds_vec)_mm512_maskz_fmadd_ps(is_some, error, inverse, inverse);
#else
    return 1 / d;
#endif
}

/* What results of 16 bits need: 2^x right to 2^-13 of it, and 1 / d to 2^-14. Infinities are like those of
 * ds_vexp2. */
DS_INLINE ds_vec ds_vexp2_half(ds_vec x) {
#if DS_LANES == 16 && defined(__AVX512DQ__)
    ds_vec f = (ds_vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF); /* f from 0 to 1 */
    ds_vec p = ds_vfma(ds_splat(7.802467e-2f), f, ds_splat(2.2606728e-1f));
    p = ds_vfma(p, f, ds_splat(6.9583329e-1f));
    return ds_vscale(ds_vfma(p, f, ds_splat(9.9992523e-1f)), x);
#else
    return ds_vexp2(x);
#endif
}

DS_INLINE ds_vec ds_vinverse_half(ds_vec d) {
#if DS_LANES == 16
    return (ds_vec)_mm512_rcp14_ps((__m512)d);
#else
    return 1 / d;
#endif
}

#endif
