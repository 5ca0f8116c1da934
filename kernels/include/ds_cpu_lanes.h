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

#endif
