/* Quantised values on their way out, and the errors that they leave behind. */
#ifndef DS_QUANTIZER_PACK_H
#define DS_QUANTIZER_PACK_H

#include "group.h"

typedef uint16_t quad_u16 __attribute__((vector_size(QUAD)));
typedef uint8_t half_quad __attribute__((vector_size(QUAD / 2)));

/* The numbers at `values`, a quad of them, quantised to a byte each. */
DS_INLINE ds_vec_u32 bytes_of(const float *values, params p, float levels) {
    ds_vec v[4];
    for (int k = 0; k < 4; k++) v[k] = scaled(ds_load(values, k * DS_LANES, DS_F32), p, levels);
#if DS_LANES == 16
    __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)v[0]), _mm512_cvtps_epi32((__m512)v[1]));
    __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)v[2]), _mm512_cvtps_epi32((__m512)v[3]));
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (ds_vec_u32)_mm512_permutexvar_epi32(in_order, _mm512_packs_epi16(low, high));
#else
    ds_vec_u32 bytes;
    for (int k = 0; k < 4; k++) {
        ds_vec_u8 some = ds_low_bytes((ds_vec_u32)(v[k] + WHOLE));
        __builtin_memcpy((char *)&bytes + k * DS_LANES, &some, sizeof some);
    }
    return bytes;
#endif
}

/* Pairs of values into bytes, the first one in the lower half. */
DS_INLINE half_quad paired(ds_vec_u32 one) {
    quad_u16 both = (quad_u16)one;
    both = (both & 0xf) | (both >> 4 & 0xf0);
#if DS_LANES == 16
    return (half_quad)_mm512_cvtepi16_epi8((__m512i)both);
#else
    return __builtin_convertvector(both, half_quad);
#endif
}

/* Quantises `n` values of a block. `per_byte` of them lie in a byte; `to` is that of value 0. What lies
 * behind the last one in the block is anything. */
static void pack(const block *from, int64_t n, params p, float levels, int64_t per_byte, int8_t *to, int streams) {
    streams = streams && ds_aligned(to);
    for (int64_t i = 0; i < n; i += QUAD) {
        fetch_next(from, n, i, 1);
        fetch_next(from, n, i + QUAD / 2, 1);
        ds_vec_u32 one = bytes_of(from->values + i, p, levels);
        int whole = i + QUAD <= n;
        if (per_byte == 2) {
            half_quad two = paired(one);
            if (whole) __builtin_memcpy(to + i / 2, &two, sizeof two);
            else __builtin_memcpy(to + i / 2, &two, (size_t)(n - i) / 2);
        } else {
            if (whole) ds_put(to + i, one, streams);
            else __builtin_memcpy(to + i, &one, (size_t)(n - i));
        }
    }
}

DS_INLINE void add_error_of(const void *err, int64_t at, int64_t n, float *values, uint32_t t) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_store(values, i, ds_load(values, i, DS_F32) + ds_load_first(n - i, err, at + i, t), DS_F32);
    }
}

/* Adds the errors from `at` on to the values. */
static void add_error(const ds_tensor *err, int64_t at, int64_t n, block *to) {
    DS_WITH_FLOAT(t, err->dtype, add_error_of(err->data, at, n, to->values, t));
}

DS_INLINE void update_error_of(void *err, int64_t at, int64_t n, const float *values, params p, float levels,
                               float beta, uint32_t t) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load(values, i, DS_F32), q = scaled(v, p, levels) + WHOLE - WHOLE;
        ds_vec left = v - (q * p.step + p.offset), old = ds_load_first(n - i, err, at + i, t);
        ds_store_first(n - i, err, at + i, beta * old + (1 - beta) * left, t);
    }
}

/* err = beta * err + (1 - beta) * (value - what it comes back as) */
static void update_error(const ds_tensor *err, int64_t at, int64_t n, const block *from, params p, float levels,
                         float beta) {
    DS_WITH_FLOAT(t, err->dtype, update_error_of(err->data, at, n, from->values, p, levels, beta, t));
}

#endif
