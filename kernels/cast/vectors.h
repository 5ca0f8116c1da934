/* Conversion between f32 and any dtype, a vector at a time.
 *
 * A float becomes an integer towards zero; beyond its range the nearest bound, NaN zero. A boolean is
 * 0 or 1, and of anything else whether it is other than zero. i64 goes through f64.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include "ds_cpu_narrow.h"
#include "f8.h"

/* Half as many lanes, twice as wide. */
typedef float half_f32 __attribute__((vector_size(DS_LANES * 2)));
typedef double half_f64 __attribute__((vector_size(DS_LANES * 4)));
typedef int64_t half_i64 __attribute__((vector_size(DS_LANES * 4)));

/* The lower half of a vector, or the upper one; and what they are halves of. Compilers take the way
 * through memory, where a load that spans two stores waits for both. */
DS_INLINE half_f32 half_of(ds_vec v, int upper) {
#if DS_LANES == 16
    return (half_f32)(upper ? _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)v, 1)) : _mm512_castps512_ps256((__m512)v));
#else
    half_f32 half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return half[upper];
#endif
}

DS_INLINE ds_vec whole_of(half_f32 lower, half_f32 upper) {
#if DS_LANES == 16
    return (ds_vec)_mm512_insertf64x4(_mm512_castpd256_pd512((__m256d)lower), (__m256d)upper, 1);
#else
    half_f32 half[2] = {lower, upper};
    ds_vec v;
    __builtin_memcpy(&v, half, sizeof v);
    return v;
#endif
}

/* Half the lanes of a vector: of `a`, which is DS_F64 or DS_I64, as f32. */
DS_INLINE half_f32 from_wide(const void *p, uint32_t a) {
    half_f64 v;
    half_i64 whole;
    __builtin_memcpy(&v, p, sizeof v);
    __builtin_memcpy(&whole, p, sizeof whole);
    if (a == DS_I64) v = __builtin_convertvector(whole, half_f64);
    return __builtin_convertvector(v, half_f32);
}

/* DS_LANES elements of `a`. */
DS_INLINE ds_vec from_any(const void *p, uint32_t a) {
    switch (a) {
    case DS_F8E4M3:
    case DS_F8E5M2: return f8_load(p, a);
    case DS_I8: return ds_bytes_at(p, 1);
    case DS_U8: return ds_bytes_at(p, 0);
    case DS_BOOL: return (ds_vec)((ds_vec_u32)(ds_bytes_at(p, 0) != 0) & DS_BITS_OF(1));
    case DS_I16: {
#if DS_LANES == 16
        return (ds_vec)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(p)));
#elif DS_LANES == 8
        return (ds_vec)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(p)));
#else
        int16_t lanes[DS_LANES];
        __builtin_memcpy(lanes, p, sizeof lanes);
        ds_vec v;
        for (int i = 0; i < DS_LANES; i++) v[i] = lanes[i];
        return v;
#endif
    }
    case DS_I32: {
        ds_vec_i32 whole;
        __builtin_memcpy(&whole, p, sizeof whole);
        return __builtin_convertvector(whole, ds_vec);
    }
    case DS_F64:
    case DS_I64: return whole_of(from_wide(p, a), from_wide((const char *)p + sizeof(half_f64), a));
    default: return ds_load(p, 0, a);
    }
}

/* `v` towards zero as i32, within the bounds of `b`. */
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

/* `v` towards zero, within a type whose bounds are powers of two: `past` is one more than the greatest. */
#define TRUNCATED(type, v, least, past, greatest) \
    ((v) >= (past) ? (greatest) : (v) < (least) ? (type)(least) : (v) == (v) ? (type)(v) : 0)

/* Half the lanes of a vector, as `b`, which is DS_F64 or DS_I64. */
DS_INLINE ds_vec_u32 to_wide(half_f32 v, uint32_t b) {
    if (b == DS_F64) return (ds_vec_u32)__builtin_convertvector(v, half_f64);
#if DS_LANES == 16 && defined(__AVX512DQ__) /* gives the least where there is no such integer */
    __m256 x = (__m256)v;
    __m512i whole = _mm512_maskz_cvttps_epi64(_mm256_cmp_ps_mask(x, x, _CMP_ORD_Q), x);
    __mmask8 past = _mm256_cmp_ps_mask(x, _mm256_set1_ps(0x1p63f), _CMP_GE_OQ);
    return (ds_vec_u32)_mm512_mask_mov_epi64(whole, past, _mm512_set1_epi64(INT64_MAX));
#else
    half_i64 whole;
    for (int i = 0; i < DS_LANES / 2; i++) whole[i] = TRUNCATED(int64_t, v[i], -0x1p63f, 0x1p63f, INT64_MAX);
    return (ds_vec_u32)whole;
#endif
}

/* The processor's own conversion takes denormals for zero, casts keep them. */
DS_INLINE ds_vec_u16 to_half(ds_vec v, uint32_t b) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
    const int denormal = 0x20;
    if (b == DS_BF16 && !_mm512_fpclass_ps_mask((__m512)v, denormal)) return (ds_vec_u16)_mm512_cvtneps_pbh((__m512)v);
#endif
    return ds_vec_to_half(v, b);
}

/* Stores a quarter of a vector, past the caches where `streams` and there is such. */
DS_INLINE void put_bytes(void *p, ds_vec_u8 v, int streams) {
#if DS_LANES == 16
    if (streams) return _mm_stream_si128(p, (__m128i)v);
#endif
    (void)streams;
    __builtin_memcpy(p, &v, sizeof v);
}

/* DS_LANES elements of `b`. */
DS_INLINE void put_any(void *p, ds_vec v, uint32_t b, int streams) {
    switch (b) {
    case DS_F32: ds_put(p, (ds_vec_u32)v, streams); break;
    case DS_F8E4M3:
    case DS_F8E5M2: put_bytes(p, ds_low_bytes(f8_codes(v, b)), streams); break;
    case DS_I8:
    case DS_U8: put_bytes(p, ds_low_bytes((ds_vec_u32)truncated(v, b)), streams); break;
    case DS_BOOL: put_bytes(p, ds_low_bytes((ds_vec_u32)(v != 0) & 1), streams); break;
    case DS_I16: ds_put_half(p, ds_low_halves((ds_vec_u32)truncated(v, b) & 0xffff), streams); break;
    case DS_I32: ds_put(p, (ds_vec_u32)truncated(v, b), streams); break;
    case DS_F64:
    case DS_I64: {
        ds_put(p, to_wide(half_of(v, 0), b), streams);
        ds_put((char *)p + sizeof(half_f64), to_wide(half_of(v, 1), b), streams);
        break;
    }
    default: ds_put_half(p, to_half(v, b), streams); break;
    }
}

/* Bytes between what is read and what is fetched: arithmetic fills the processor's window before there
 * are enough lines on their way. */
enum { AHEAD = 2048 };

DS_INLINE void vectors(const void *x, uint32_t a, void *y, uint32_t b, int64_t n, int streams) {
    const int64_t bytes = DS_LANES * ds_size(a);
    for (int64_t i = 0; i < n; i += DS_LANES) {
        const char *from = ds_at(x, i, a);
        for (int64_t ahead = 0; ahead < bytes; ahead += 64) __builtin_prefetch(from + AHEAD + ahead, 0, 3);
        put_any(ds_at(y, i, b), from_any(from, a), b, streams);
    }
}

/* Of f32, or to f32, or between bf16 and f16; `n` is whole vectors. */
static void convert_vectors(const void *x, uint32_t a, void *y, uint32_t b, int64_t n, int streams) {
#define FROM(a) case a: vectors(x, a, y, DS_F32, n, streams); break;
#define TO(b) case b: vectors(x, DS_F32, y, b, n, streams); break;
#define EACH_BUT_F32(of) \
    of(DS_F16) of(DS_BF16) of(DS_F64) of(DS_I8) of(DS_U8) of(DS_I16) of(DS_I32) of(DS_I64) of(DS_BOOL) of(DS_F8E4M3) of(DS_F8E5M2)
    if (b == DS_F32) switch (a) { EACH_BUT_F32(FROM) }
    else if (a == DS_F32) switch (b) { EACH_BUT_F32(TO) }
    else if (a == DS_F16) vectors(x, DS_F16, y, DS_BF16, n, streams);
    else vectors(x, DS_BF16, y, DS_F16, n, streams);
#undef EACH_BUT_F32
#undef TO
#undef FROM
}

#endif
