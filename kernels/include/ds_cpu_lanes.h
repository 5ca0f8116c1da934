/* What compares lanes of vectors, for CPU kernels: a bit for each lane. Compilers make vectors of
 * such bits and look at one lane after another.
 */
#ifndef DS_CPU_LANES_H
#define DS_CPU_LANES_H

#include "ds_cpu_math.h"

#if DS_LANES == 16
#define DS_COMPARED(a, b, intel, gnu) _mm512_cmp_ps_mask((__m512)(a), (__m512)(b), intel)
#elif DS_LANES == 8
#define DS_COMPARED(a, b, intel, gnu) (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)(a), (__m256)(b), intel))
#else
#define DS_COMPARED(a, b, intel, gnu) ds_sign_bits(gnu)
DS_INLINE uint32_t ds_sign_bits(ds_vec_i32 v) {
#if defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)v);
#else
    uint32_t bits = 0;
    for (int i = 0; i < DS_LANES; i++) bits |= (uint32_t)(v[i] < 0) << i;
    return bits;
#endif
}
#endif

/* Where one of the two is a NaN. */
DS_INLINE uint32_t ds_unordered(ds_vec a, ds_vec b) { return DS_COMPARED(a, b, _CMP_UNORD_Q, (a != a) | (b != b)); }

/* Where a is greater, or one of the two is a NaN. */
DS_INLINE uint32_t ds_not_at_most(ds_vec a, ds_vec b) { return DS_COMPARED(a, b, _CMP_NLE_UQ, ~(a <= b)); }

DS_INLINE uint32_t ds_equal(ds_vec a, ds_vec b) { return DS_COMPARED(a, b, _CMP_EQ_OQ, a == b); }

#undef DS_COMPARED

/* The same of integers. */
DS_INLINE uint32_t ds_equal_i32(ds_vec_i32 a, ds_vec_i32 b) {
#if DS_LANES == 16
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
#elif DS_LANES == 8
    return (uint32_t)_mm256_movemask_ps((__m256)(a == b));
#else
    return ds_sign_bits(a == b);
#endif
}

/* The first `n` lanes of `v`, and `rest` in the others. */
DS_INLINE ds_vec ds_fill_behind(int64_t n, ds_vec v, ds_vec rest) {
#if DS_LANES == 16
    return n < DS_LANES ? (ds_vec)_mm512_mask_mov_ps((__m512)rest, (__mmask16)((1u << n) - 1), (__m512)v) : v;
#else
    for (int64_t i = n; i < DS_LANES; i++) v[i] = rest[i];
    return v;
#endif
}

/* The greatest lane; no NaN but where all are. */
DS_INLINE float ds_greatest_lane(ds_vec v) {
#if DS_LANES == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float greatest = v[0];
    for (int i = 1; i < DS_LANES; i++) greatest = greatest < v[i] ? v[i] : greatest;
    return greatest;
#endif
}

/* Integers of 16 bits, as many as a pair of vectors has lanes. */
typedef int16_t ds_vec_i16 __attribute__((vector_size(4 * DS_LANES)));

/* The lesser of each two. */
DS_INLINE ds_vec_i16 ds_lesser_i16(ds_vec_i16 a, ds_vec_i16 b) {
#if DS_LANES == 16
    return (ds_vec_i16)_mm512_min_epi16((__m512i)a, (__m512i)b);
#elif DS_LANES == 8
    return (ds_vec_i16)_mm256_min_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (ds_vec_i16)_mm_min_epi16((__m128i)a, (__m128i)b);
#else
    ds_vec_i16 less = a < b;
    return (a & less) | (b & ~less);
#endif
}

/* The least lane. That of the complement is the complement of the greatest. */
DS_INLINE int16_t ds_least_i16(ds_vec_i16 v) {
#if DS_LANES >= 8
#if DS_LANES == 16
    __m256i half = _mm256_min_epi16(_mm512_castsi512_si256((__m512i)v), _mm512_extracti64x4_epi64((__m512i)v, 1));
#else
    __m256i half = (__m256i)v;
#endif
    __m128i eight = _mm_min_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* The instruction is one of unsigned numbers. */
    eight = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(INT16_MIN)));
    return (int16_t)(_mm_cvtsi128_si32(eight) ^ 0x8000);
#else
    int16_t least = v[0];
    for (int lane = 1; lane < 2 * DS_LANES; lane++) least = v[lane] < least ? v[lane] : least;
    return least;
#endif
}

#endif
