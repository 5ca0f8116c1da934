/* Vectors of 8-bit floats: between their codes and f32, to the bit.
 *
 * f8e5m2 is the upper half of an f16. f8e4m3 has no infinity: all ones is NaN, and beyond its range
 * is NaN.
 */
#ifndef F8_H
#define F8_H

#include "ds_cpu_math.h"

#if DS_LANES == 4 /* much code there, too much to have it twice */
#define F8_FN static __attribute__((noinline, optimize("no-tree-vectorize")))
#else
#define F8_FN DS_INLINE
#endif

/* DS_LANES codes as numbers: as f16, which holds all of f8e4m3 but for a factor of 2^8. */
F8_FN ds_vec f8_load(const void *p, uint32_t dtype) {
    /* With the sign extended to the left, a shift has all in place, but for one more copy of the sign. */
    ds_vec_u16 code;
#if DS_LANES == 16
    code = (ds_vec_u16)_mm256_cvtepi8_epi16(_mm_loadu_si128(p));
#elif DS_LANES == 8
    code = (ds_vec_u16)_mm_cvtepi8_epi16(_mm_loadl_epi64(p));
#else
    for (int i = 0; i < DS_LANES; i++) code[i] = (uint16_t)((const int8_t *)p)[i];
#endif
    ds_vec_u16 half = dtype == DS_F8E5M2 ? code << 8 : code << 7 & 0xbfff;
    ds_vec v = ds_load(&half, 0, DS_F16);
    if (dtype == DS_F8E5M2) return v;
    v *= 256;
    return (ds_vec)((ds_vec_i32)v | ((ds_vabs(v) > 448) & 0x7fc00000));
}

/* The codes nearest to `v`, ties to even, a lane each. */
F8_FN ds_vec_u32 f8_codes(ds_vec v, uint32_t dtype) {
    int mantissa = dtype == DS_F8E5M2 ? 2 : 3, least = dtype == DS_F8E5M2 ? -14 : -6;
    int32_t beyond = dtype == DS_F8E5M2 ? 0x7c : 0x7f;
    ds_vec_i32 bits = (ds_vec_i32)v & 0x7fffffff;
    /* The exponent's bias falls; rounding may carry into it, and up to what is beyond. */
    int dropped = 23 - mantissa;
    ds_vec_i32 code = (bits - ((126 + least) << 23) + ((1 << (dropped - 1)) - 1) + (bits >> dropped & 1)) >> dropped;
    /* Denormals: a sum with a power of two whose last place is theirs. */
    int32_t power = (127 + least - mantissa + 23) << 23;
    ds_vec_i32 denormal = (ds_vec_i32)((ds_vec)bits + DS_FLOAT_OF((uint32_t)power)) - power;
#if DS_LANES == 16 /* compilers make vectors of what is compared */
    __m512i u = (__m512i)bits, all = _mm512_min_epi32((__m512i)code, _mm512_set1_epi32(beyond));
    __mmask16 is_denormal = _mm512_cmplt_epi32_mask(u, _mm512_set1_epi32((127 + least) << 23));
    all = _mm512_mask_mov_epi32(all, is_denormal, (__m512i)denormal);
    __mmask16 is_nan = _mm512_cmpgt_epi32_mask(u, _mm512_set1_epi32(0x7f800000));
    code = (ds_vec_i32)_mm512_mask_mov_epi32(all, is_nan, _mm512_set1_epi32(0x7f));
#else
    ds_vec_i32 is_beyond = code > beyond, is_denormal = bits < (127 + least) << 23, is_nan = bits > 0x7f800000;
    code = (is_beyond & beyond) | (~is_beyond & code);
    code = (is_denormal & denormal) | (~is_denormal & code) | (is_nan & 0x7f);
#endif
    return (ds_vec_u32)(code | ((ds_vec_i32)v >> 24 & 0x80));
}

#endif
