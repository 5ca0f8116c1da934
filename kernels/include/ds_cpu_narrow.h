/* Between bytes or 16-bit codes in memory and lanes of 32 bits, for CPU kernels: compilers take such
 * conversions apart, lane by lane.
 */
#ifndef DS_CPU_NARROW_H
#define DS_CPU_NARROW_H

#include "ds_cpu_simd.h"

typedef uint8_t ds_vec_u8 __attribute__((vector_size(DS_LANES)));

/* The lowest byte of each lane. */
DS_INLINE ds_vec_u8 ds_low_bytes(ds_vec_u32 v) {
#if DS_LANES == 16
    return (ds_vec_u8)_mm512_cvtepi32_epi8((__m512i)v);
#elif DS_LANES == 8
    __m256i bytes = _mm256_and_si256((__m256i)v, _mm256_set1_epi32(0xff));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    uint64_t eight = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    return (ds_vec_u8)eight;
#elif defined(__SSE2__)
    __m128i bytes = _mm_and_si128((__m128i)v, _mm_set1_epi32(0xff));
    __m128i words = _mm_packs_epi32(bytes, bytes);
    uint32_t four = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    return (ds_vec_u8)four;
#else
    return __builtin_convertvector(v, ds_vec_u8);
#endif
}

/* The lower 16 bits of each lane, which has no others. */
DS_INLINE ds_vec_u16 ds_low_halves(ds_vec_u32 v) {
#if DS_LANES == 16
    return (ds_vec_u16)_mm512_cvtepi32_epi16((__m512i)v);
#elif DS_LANES == 8
    return (ds_vec_u16)_mm_packus_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
#else
    return __builtin_convertvector(v, ds_vec_u16);
#endif
}

/* DS_LANES bytes as numbers; of a signed kind, or not. */
DS_INLINE ds_vec ds_bytes_at(const void *p, int is_signed) {
#if DS_LANES == 16
    __m128i bytes = _mm_loadu_si128(p);
    return (ds_vec)_mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
#elif DS_LANES == 8
    __m128i bytes = _mm_loadl_epi64(p);
    return (ds_vec)_mm256_cvtepi32_ps(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
#else
    ds_vec v;
    for (int i = 0; i < DS_LANES; i++) v[i] = is_signed ? ((const int8_t *)p)[i] : ((const uint8_t *)p)[i];
    return v;
#endif
}

#endif
