/* Quantised values on their way out, and the errors that they leave behind. */
#ifndef DS_QUANTIZER_PACK_H
#define DS_QUANTIZER_PACK_H

#include "group.h"

typedef uint16_t quad_u16 __attribute__((vector_size(QUAD)));
typedef uint8_t half_quad __attribute__((vector_size(QUAD / 2)));

/* What quantised values leave for the next call: err = beta * err + (1 - beta) * (value - what it comes
 * back as). */
typedef struct {
    void *data; /* of value 0 of a block */
    uint32_t dtype;
    float beta;
} error;

/* The nearest whole numbers, as integers or, where that is all that is needed, as the low bits. */
DS_INLINE ds_vec_u32 nearest(ds_vec v) {
#if DS_LANES == 16
    return (ds_vec_u32)_mm512_cvtps_epi32((__m512)v);
#else
    return (ds_vec_u32)(v + WHOLE);
#endif
}

DS_INLINE ds_vec number_of(ds_vec_u32 nearest) {
#if DS_LANES == 16
    return (ds_vec)_mm512_cvtepi32_ps((__m512i)nearest);
#else
    return (ds_vec)nearest - WHOLE;
#endif
}

/* The nearest numbers of a quad. */
typedef struct {
    ds_vec_u32 a, b, c, d;
} codes;

DS_INLINE codes codes_of(quad v, scaling by) {
    return (codes){nearest(scaled(v.a, by)), nearest(scaled(v.b, by)), nearest(scaled(v.c, by)),
                   nearest(scaled(v.d, by))};
}

/* Their low bytes. */
DS_INLINE ds_vec_u32 bytes_of(codes q) {
#if DS_LANES == 16
    __m512i low = _mm512_packs_epi32((__m512i)q.a, (__m512i)q.b);
    __m512i high = _mm512_packs_epi32((__m512i)q.c, (__m512i)q.d);
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (ds_vec_u32)_mm512_permutexvar_epi32(in_order, _mm512_packs_epi16(low, high));
#else
    ds_vec_u8 bytes[4] = {ds_low_bytes(q.a), ds_low_bytes(q.b), ds_low_bytes(q.c), ds_low_bytes(q.d)};
    ds_vec_u32 all;
    __builtin_memcpy(&all, bytes, sizeof all);
    return all;
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

/* Where the numbers of a block go, one or two in a byte. */
typedef struct {
    int8_t *bytes; /* of value 0 */
    int two, streams;
} place;

DS_INLINE place place_of_bytes(const ds_tensor *q, int64_t value, int64_t per_byte) {
    place to = {.bytes = (int8_t *)q->data + (value >> (per_byte - 1)), .two = per_byte == 2};
    to.streams = ds_streams(ds_elements(q), DS_I8) && ds_aligned(to.bytes);
    return to;
}

/* Stores numbers from `i` on; `n` of the block are some. */
DS_INLINE void store_codes(place to, codes q, int64_t i, int64_t n) {
    ds_vec_u32 one = bytes_of(q);
    int64_t left = n - i;
    if (to.two) {
        half_quad two = paired(one);
        if (left >= QUAD) ds_put_half(to.bytes + i / 2, (ds_vec_u16)two, to.streams);
        else __builtin_memcpy(to.bytes + i / 2, &two, (size_t)left / 2);
    } else {
        if (left >= QUAD) ds_put(to.bytes + i, one, to.streams);
        else __builtin_memcpy(to.bytes + i, &one, (size_t)left);
    }
}

/* Quantises `n` elements. */
static __attribute__((unused)) void pack(const void *from, uint32_t dtype, int64_t n, params p, float levels,
                                         place to) {
    _Alignas(64) float few[QUAD];
    const int64_t size = ds_size(dtype);
    const scaling by = scaling_of(p, levels);
    for (int64_t i = 0; i < n; i += QUAD) {
        const void *x = (const char *)from + i * size;
        fetch_next(from, n, i, 1, size);
        fetch_next(from, n, i + QUAD / 2, 1, size);
        if (i + QUAD > n) x = __builtin_memcpy(few, x, (size_t)((n - i) * size));
        store_codes(to, codes_of(load_quad_of(x, dtype), by), i, n);
    }
}

/* The error of what was `v`. */
DS_INLINE ds_vec error_of(ds_vec old, ds_vec v, ds_vec_u32 q, params p, float beta) {
    return beta * old + (1 - beta) * (v - (number_of(q) * p.step + p.offset));
}

/* What is neither NaN nor below 2^-126 has a faster way to bf16. */
DS_INLINE void update_errors(void *err, quad v, codes q, params p, float beta, uint32_t t) {
    ds_vec2 some = ds_load2_in_order(err, 0, t), more = ds_load2_in_order(err, 2 * DS_LANES, t);
    some = (ds_vec2){error_of(some.a, v.a, q.a, p, beta), error_of(some.b, v.b, q.b, p, beta)};
    more = (ds_vec2){error_of(more.a, v.c, q.c, p, beta), error_of(more.b, v.d, q.d, p, beta)};
    ds_store2_in_order(err, 0, some, t, is_plain_pair(some), 0);
    ds_store2_in_order(err, 2 * DS_LANES, more, t, is_plain_pair(more), 0);
}

/* The same with errors, of values in a buffer. Those of the group behind the next are fetched. */
static __attribute__((unused)) void pack_with_error(const block *from, int64_t n, params p, float levels, place to,
                                                    error err) {
    _Alignas(64) float few[QUAD];
    const int64_t size = ds_size(err.dtype);
    const scaling by = scaling_of(p, levels);
    for (int64_t i = 0; i < n; i += QUAD) {
        char *lies = (char *)err.data + i * size;
        void *e = lies;
        __builtin_prefetch(lies + 2 * n * size, 1, 3);
        __builtin_prefetch(lies + (2 * n + QUAD / 2) * size, 1, 3);
        if (i + QUAD > n) e = __builtin_memcpy(few, lies, (size_t)((n - i) * size));
        quad v = load_quad(from->values + i, DS_F32);
        codes q = codes_of(v, by);
        store_codes(to, q, i, n);
        DS_WITH_FLOAT(t, err.dtype, update_errors(e, v, q, p, err.beta, t));
        if (i + QUAD > n) __builtin_memcpy(lies, few, (size_t)((n - i) * size));
    }
}

/* The errors from `i` on; `n` of the block are some. */
DS_INLINE quad errors_at(error err, int64_t i, int64_t n) {
    _Alignas(64) float few[QUAD];
    const int64_t size = ds_size(err.dtype);
    const void *e = (const char *)err.data + i * size;
    if (i + QUAD > n) e = __builtin_memcpy(few, e, (size_t)((n - i) * size));
    return load_quad_of(e, err.dtype);
}

#endif
