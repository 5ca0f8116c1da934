/* Conversion of pieces of a tensor through a dtype that holds every value of the source.
 *
 * A float becomes an integer towards zero; beyond its range the nearest bound, NaN zero. An integer
 * becomes a narrower one by its low bits, and a float through f64. A boolean is 0 or 1, and of anything
 * else whether it is other than zero.
 */
#ifndef PIECES_H
#define PIECES_H

#include "ds_cpu_simd.h"

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

DS_INLINE void copy_bytes(void *to, const void *from, int64_t n, int streams) {
    int64_t i = 0, width = sizeof(ds_vec);
    for (; streams && i + width <= n; i += width) {
        ds_vec_u32 v;
        __builtin_memcpy(&v, (const char *)from + i, sizeof v);
        ds_put((char *)to + i, v, streams);
    }
    __builtin_memmove((char *)to + i, (const char *)from + i, (size_t)(n - i));
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

/* Loops with one of the types that pieces go through. */
#define EACH(statement) \
    for (int64_t i = 0; i < n; i++) statement

static void load_f32(float *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_F32: __builtin_memcpy(to, from, (size_t)n * 4); break;
    case DS_BF16: EACH(to[i] = ds_bf16_to_f32(((const uint16_t *)from)[i])); break;
    case DS_F16: 
        for (int64_t i = 0; i < n; i += DS_LANES) ds_store_first(n - i, to, i, ds_load_first(n - i, from, i, DS_F16), DS_F32);
        break;
    case DS_I8: EACH(to[i] = ((const int8_t *)from)[i]); break;
    case DS_U8: EACH(to[i] = ((const uint8_t *)from)[i]); break;
    case DS_I16: EACH(to[i] = ((const int16_t *)from)[i]); break;
    case DS_BOOL: EACH(to[i] = ((const uint8_t *)from)[i] != 0); break;
    }
}

static void load_f64(double *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_F64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    case DS_I32: EACH(to[i] = ((const int32_t *)from)[i]); break;
    case DS_I64: EACH(to[i] = (double)((const int64_t *)from)[i]); break;
    }
}

static void load_i64(int64_t *to, const void *from, uint32_t a, int64_t n) {
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

#define STORE_INTEGERS(one)                                                                                    \
    case DS_I8: EACH(((int8_t *)to)[i] = (int8_t)TRUNCATED(int32_t, from[i], -0x1p7 * one, 0x1p7 * one, 127)); break; \
    case DS_U8: EACH(((uint8_t *)to)[i] = (uint8_t)TRUNCATED(int32_t, from[i], 0 * one, 0x1p8 * one, 255)); break; \
    case DS_I16: EACH(((int16_t *)to)[i] = (int16_t)TRUNCATED(int32_t, from[i], -0x1p15 * one, 0x1p15 * one, 32767)); break; \
    case DS_I32: EACH(((int32_t *)to)[i] = TRUNCATED(int32_t, from[i], -0x1p31 * one, 0x1p31 * one, INT32_MAX)); break; \
    case DS_I64: EACH(((int64_t *)to)[i] = TRUNCATED(int64_t, from[i], -0x1p63 * one, 0x1p63 * one, INT64_MAX)); break; \
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break

static void store_f32(void *to, uint32_t b, const float *from, int64_t n) {
    switch (b) {
    case DS_F32: __builtin_memcpy(to, from, (size_t)n * 4); break;
    case DS_F64: EACH(((double *)to)[i] = (double)from[i]); break;
    case DS_BF16: EACH(((uint16_t *)to)[i] = ds_f32_to_bf16(from[i])); break;
    case DS_F16:
        for (int64_t i = 0; i < n; i += DS_LANES) ds_store_first(n - i, to, i, ds_load_first(n - i, from, i, DS_F32), DS_F16);
        break;
    STORE_INTEGERS(1.0f);
    }
}

static void store_f64(void *to, uint32_t b, const double *from, int64_t n) {
    float narrow[PIECE];
    switch (b) {
    case DS_F64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    case DS_F32: EACH(((float *)to)[i] = (float)from[i]); break;
    case DS_BF16:
    case DS_F16:
        EACH(narrow[i] = to_odd(from[i]));
        store_f32(to, b, narrow, n);
        break;
    STORE_INTEGERS(1.0);
    }
}

static void store_i64(void *to, uint32_t b, const int64_t *from, int64_t n) {
    switch (b) {
    case DS_I8:
    case DS_U8: EACH(((uint8_t *)to)[i] = (uint8_t)from[i]); break;
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break;
    case DS_I16: EACH(((uint16_t *)to)[i] = (uint16_t)from[i]); break;
    case DS_I32: EACH(((uint32_t *)to)[i] = (uint32_t)from[i]); break;
    case DS_I64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    }
}

static int is_float(uint32_t dtype) { return dtype <= DS_F64; }

/* At most PIECE elements. */
static void convert_piece(const void *x, uint32_t a, void *y, uint32_t b, int64_t n) {
    _Alignas(64) char middle[PIECE * 8];
    if (!is_float(a) && !is_float(b)) {
        load_i64((void *)middle, x, a, n);
        store_i64(y, b, (const void *)middle, n);
    } else if (a == DS_F64 || a == DS_I32 || a == DS_I64) {
        load_f64((void *)middle, x, a, n);
        store_f64(y, b, (const void *)middle, n);
    } else {
        load_f32((void *)middle, x, a, n);
        store_f32(y, b, (const void *)middle, n);
    }
}

#undef EACH
#endif
