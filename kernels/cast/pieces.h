/* Conversion of pieces of a tensor through a dtype that holds every value of the source: f32, f64 or
 * i64. An integer becomes a narrower one by its low bits, and a float through f64.
 */
#ifndef PIECES_H
#define PIECES_H

#include "vectors.h"

enum { PIECE = 512 };

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

#define EACH(statement) \
    for (int64_t i = 0; i < n; i++) statement

static PLAIN void load_f64(double *to, const void *from, uint32_t a, int64_t n) {
    switch (a) {
    case DS_F64: __builtin_memcpy(to, from, (size_t)n * 8); break;
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

/* To what is no f32. */
static PLAIN void store_f64(void *to, uint32_t b, const double *from, int64_t n) {
    _Alignas(64) float odd[PIECE] = {0};
    switch (b) {
    case DS_I8: EACH(((int8_t *)to)[i] = (int8_t)TRUNCATED(int32_t, from[i], -0x1p7, 0x1p7, 127)); break;
    case DS_U8: EACH(((uint8_t *)to)[i] = (uint8_t)TRUNCATED(int32_t, from[i], 0, 0x1p8, 255)); break;
    case DS_I16: EACH(((int16_t *)to)[i] = (int16_t)TRUNCATED(int32_t, from[i], -0x1p15, 0x1p15, 32767)); break;
    case DS_I32: EACH(((int32_t *)to)[i] = TRUNCATED(int32_t, from[i], -0x1p31, 0x1p31, INT32_MAX)); break;
    case DS_I64: EACH(((int64_t *)to)[i] = TRUNCATED(int64_t, from[i], -0x1p63, 0x1p63, INT64_MAX)); break;
    case DS_BOOL: EACH(((uint8_t *)to)[i] = from[i] != 0); break;
    case DS_F64: __builtin_memcpy(to, from, (size_t)n * 8); break;
    default:
        EACH(odd[i] = to_odd(from[i]));
        convert_vectors(odd, DS_F32, to, b, n, 0);
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

/* At most PIECE elements, whole vectors of them. */
static void convert_piece(const void *x, uint32_t a, void *y, uint32_t b, int64_t n) {
    _Alignas(64) char middle[PIECE * 8];
    if (!is_float(a) && !is_float(b)) {
        load_i64((void *)middle, x, a, n);
        store_i64(y, b, (const void *)middle, n);
    } else if (a == DS_F64 || a == DS_I32 || a == DS_I64) {
        load_f64((void *)middle, x, a, n);
        store_f64(y, b, (const void *)middle, n);
    } else {
        convert_vectors(x, a, middle, DS_F32, n, 0);
        convert_vectors(middle, DS_F32, y, b, n, 0);
    }
}

#undef EACH
#endif
