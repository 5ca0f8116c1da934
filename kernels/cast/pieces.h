/* Conversion of pieces of a tensor through a dtype that holds every value of the source.
 *
 * A float becomes an integer towards zero; beyond its range the nearest bound, NaN zero. An integer
 * becomes a narrower one by its low bits, and a float through f64. A boolean is 0 or 1, and of anything
 * else whether it is other than zero.
 */
#ifndef PIECES_H
#define PIECES_H

#include "f8.h"

enum { PIECE = 512 };

DS_INLINE ds_vec_u32 joined(const ds_vec_u16 half[2]) {
#if DS_LANES == 16 /* compilers take the way through memory, and the load waits for both stores */
    return (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)half[0]), (__m256i)half[1], 1);
#else
    ds_vec_u32 bits;
    __builtin_memcpy(&bits, half, sizeof bits);
    return bits;
#endif
}

/* f64 as f32, rounded to the neighbour with an odd last bit where it is not exact: rounding that again
 * to 16 bits is as if it were done once (Boldo and Melquiond 2008). */
DS_INLINE float to_odd(double v) {
    float nearest = (float)v;
    double back = (double)nearest;
    uint32_t bits = DS_BITS_OF(nearest);
    if (back == v || (bits & 1) || (bits & 0x7f800000) == 0x7f800000) return nearest;
    double size = v < 0 ? -v : v, size_back = back < 0 ? -back : back;
    uint32_t sign = v < 0 ? 0x80000000u : 0;
    return DS_FLOAT_OF(sign | ((bits & 0x7fffffff) + (size > size_back || nearest == 0 ? 1 : -1)));
}

static int is_float(uint32_t dtype) { return dtype <= DS_F64 || dtype >= DS_F8E4M3; }

/* Of pairs that matter less: not worth the compiler's time, nor what a vector of them would gain. */
#define PLAIN __attribute__((noinline, optimize("no-tree-vectorize")))

/* Loops with one of the types that pieces go through. */
#define EACH(statement) \
    for (int64_t i = 0; i < n; i++) statement
#define VECTORS(statement) \
    for (int64_t i = 0; i < n; i += DS_LANES) statement

static void load_f32(float *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_BF16: EACH(to[i] = ds_bf16_to_f32(((const uint16_t *)from)[i])); break;
    case DS_F16: VECTORS(ds_store_first(n - i, to, i, ds_load_first(n - i, from, i, DS_F16), DS_F32)); break;
    case DS_F8E4M3:
    case DS_F8E5M2: VECTORS(ds_store_first(n - i, to, i, f8_load_first(n - i, (const uint8_t *)from + i, a), DS_F32)); break;
    case DS_I8: EACH(to[i] = ((const int8_t *)from)[i]); break;
    case DS_U8: EACH(to[i] = ((const uint8_t *)from)[i]); break;
    case DS_I16: EACH(to[i] = ((const int16_t *)from)[i]); break;
    case DS_BOOL: EACH(to[i] = ((const uint8_t *)from)[i] != 0); break;
    }
}

static void load_f64(double *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_I32: EACH(to[i] = ((const int32_t *)from)[i]); break;
    case DS_I64: EACH(to[i] = (double)((const int64_t *)from)[i]); break;
    }
}

static PLAIN void load_i64(int64_t *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_I8: EACH(to[i] = ((const int8_t *)from)[i]); break;
    case DS_U8: EACH(to[i] = ((const uint8_t *)from)[i]); break;
    case DS_BOOL: EACH(to[i] = ((const uint8_t *)from)[i] != 0); break;
    case DS_I16: EACH(to[i] = ((const int16_t *)from)[i]); break;
    case DS_I32: EACH(to[i] = ((const int32_t *)from)[i]); break;
    case DS_I64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    }
}

/* `v` towards zero, within a type whose bounds are powers of two: `past` is one more than the greatest. */
#define TRUNCATED(type, v, least, past, greatest) \
    ((v) >= (past) ? (greatest) : (v) < (least) ? (type)(least) : (v) == (v) ? (type)(v) : 0)

/* A vector of f32 towards zero as i32, within the bounds of `b`. */
DS_INLINE ds_vec_i32 truncated(ds_vec v, uint32_t b) {
    float least = b == DS_I8 ? -0x1p7f : b == DS_I16 ? -0x1p15f : b == DS_I32 ? -0x1p31f : 0;
    float greatest = b == DS_I8 ? 127 : b == DS_U8 ? 255 : b == DS_I16 ? 32767 : 0x1.fffffep30f;
#if DS_LANES == 16
    __m512 x = _mm512_min_ps(_mm512_set1_ps(greatest), _mm512_max_ps(_mm512_set1_ps(least), (__m512)v));
    __mmask16 past = b == DS_I32 ? _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(0x1p31f), _CMP_GE_OQ) : 0;
    __m512i whole = _mm512_maskz_cvttps_epi32(_mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_ORD_Q), x);
    return (ds_vec_i32)_mm512_mask_mov_epi32(whole, past, _mm512_set1_epi32(INT32_MAX));
#else
    ds_vec_i32 past = v >= ds_splat(0x1p31f);
    v = ds_vselect(v == v, v, ds_splat(0));
    v = ds_vmin(ds_splat(greatest), ds_vmax(ds_splat(least), v));
    ds_vec_i32 whole = __builtin_convertvector(v, ds_vec_i32);
    return b == DS_I32 ? (past & INT32_MAX) | (~past & whole) : whole;
#endif
}

/* The first `n` lanes of narrow integers. */
DS_INLINE void put_narrow(void *to, int64_t n, const void *lanes, int64_t size) {
    if (n >= DS_LANES) __builtin_memcpy(to, lanes, (size_t)(size * DS_LANES));
    else __builtin_memcpy(to, lanes, (size_t)(size * n));
}

/* The lowest `size` bytes of each lane. */
DS_INLINE void put_low(void *to, int64_t n, ds_vec_u32 v, int64_t size) {
    ds_vec_u8 bytes = ds_low_bytes(v);
    ds_vec_u16 halves = ds_low_halves(v & 0xffff);
    put_narrow(to, n, size == 1 ? (const void *)&bytes : size == 2 ? (const void *)&halves : &v, size);
}

static void store_f32(void *to, uint32_t b, const float *from, int64_t n) {
    switch (b) {
    case DS_F64: EACH(((double *)to)[i] = (double)from[i]); break;
    case DS_BF16: EACH(((uint16_t *)to)[i] = ds_f32_to_bf16(from[i])); break;
    case DS_F16: VECTORS(ds_store_first(n - i, to, i, ds_load_first(n - i, from, i, DS_F32), DS_F16)); break;
    case DS_F8E4M3:
    case DS_F8E5M2: VECTORS(put_low((char *)to + i, n - i, f8_codes(ds_load_first(n - i, from, i, DS_F32), b), 1)); break;
    case DS_I64: EACH(((int64_t *)to)[i] = TRUNCATED(int64_t, from[i], -0x1p63f, 0x1p63f, INT64_MAX)); break;
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break;
    case DS_I8:
    case DS_U8: VECTORS(put_low((char *)to + i, n - i, (ds_vec_u32)truncated(ds_load_first(n - i, from, i, DS_F32), b), 1)); break;
    case DS_I16: VECTORS(put_low((char *)to + 2 * i, n - i, (ds_vec_u32)truncated(ds_load_first(n - i, from, i, DS_F32), DS_I16), 2)); break;
    case DS_I32: VECTORS(put_low((char *)to + 4 * i, n - i, (ds_vec_u32)truncated(ds_load_first(n - i, from, i, DS_F32), DS_I32), 4)); break;
    }
}

static PLAIN void store_f64_integers(void *to, uint32_t b, const double *from, int64_t n) {
    switch (b) {
    case DS_I8: EACH(((int8_t *)to)[i] = (int8_t)TRUNCATED(int32_t, from[i], -0x1p7, 0x1p7, 127)); break;
    case DS_U8: EACH(((uint8_t *)to)[i] = (uint8_t)TRUNCATED(int32_t, from[i], 0, 0x1p8, 255)); break;
    case DS_I16: EACH(((int16_t *)to)[i] = (int16_t)TRUNCATED(int32_t, from[i], -0x1p15, 0x1p15, 32767)); break;
    case DS_I32: EACH(((int32_t *)to)[i] = TRUNCATED(int32_t, from[i], -0x1p31, 0x1p31, INT32_MAX)); break;
    case DS_I64: EACH(((int64_t *)to)[i] = TRUNCATED(int64_t, from[i], -0x1p63, 0x1p63, INT64_MAX)); break;
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break;
    }
}

static void store_f64(void *to, uint32_t b, const double *from, int64_t n) {
    float narrow[PIECE];
    if (b == DS_F32) {
        EACH(((float *)to)[i] = (float)from[i]);
    } else if (is_float(b)) {
        EACH(narrow[i] = to_odd(from[i]));
        store_f32(to, b, narrow, n);
    } else {
        store_f64_integers(to, b, from, n);
    }
}

static PLAIN void store_i64(void *to, uint32_t b, const int64_t *from, int64_t n) {
    switch (b) {
    case DS_I8:
    case DS_U8: EACH(((uint8_t *)to)[i] = (uint8_t)from[i]); break;
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break;
    case DS_I16: EACH(((uint16_t *)to)[i] = (uint16_t)from[i]); break;
    case DS_I32: EACH(((uint32_t *)to)[i] = (uint32_t)from[i]); break;
    case DS_I64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    }
}

/* At most PIECE elements. */
static void convert_piece(const void *x, uint32_t a, void *y, uint32_t b, int64_t n) {
    _Alignas(64) char middle[PIECE * 8];
    if (!is_float(a) && !is_float(b)) {
        load_i64((void *)middle, x, a, n);
        store_i64(y, b, (const void *)middle, n);
    } else if (a == DS_F64 || a == DS_I32 || a == DS_I64) {
        if (a != DS_F64) load_f64(b == DS_F64 ? y : (void *)middle, x, a, n);
        if (b != DS_F64) store_f64(y, b, a == DS_F64 ? x : (const void *)middle, n);
    } else if (b == DS_F32) {
        load_f32(y, x, a, n);
    } else {
        if (a != DS_F32) load_f32((void *)middle, x, a, n);
        store_f32(y, b, a == DS_F32 ? x : (const void *)middle, n);
    }
}

#undef EACH
#undef VECTORS
#endif
