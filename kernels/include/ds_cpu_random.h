/* Random words for CPU kernels: Philox4x32-10 as the host has it (core/src/rng.rs), many counters at a
 * time. Word `i` of a draw from (seed, offset) is lane p % 4 of counter p / 4 for p = offset + i, so
 * that an element's number does not depend on who draws it.
 *
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
#ifndef DS_CPU_RANDOM_H
#define DS_CPU_RANDOM_H

#include "ds_cpu_simd.h"

/* Words that are made at a time, and most that are asked for at a time. */
enum { DS_RANDOM_STEP = 4 * DS_LANES, DS_RANDOM_TILE = 1024 };

/* A tile of words: those from an aligned position on. */
typedef struct {
    _Alignas(64) uint32_t words[DS_RANDOM_TILE + 2 * DS_RANDOM_STEP];
} ds_random;

/* The high and low halves of a[i] * m. */
DS_INLINE void ds_random_product(ds_vec_u32 a, uint32_t m, ds_vec_u32 *high, ds_vec_u32 *low) {
#if DS_LANES == 16
    __m512i v = (__m512i)a, by = _mm512_set1_epi32((int)m);
    __m512i even = _mm512_mul_epu32(v, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(v, 32), by);
    *high = (ds_vec_u32)_mm512_mask_shuffle_epi32(odd, 0x5555, even, (_MM_PERM_ENUM)0xf5);
    *low = (ds_vec_u32)_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, (_MM_PERM_ENUM)0xa0);
#elif DS_LANES == 8
    __m256i v = (__m256i)a, by = _mm256_set1_epi32((int)m);
    __m256i even = _mm256_mul_epu32(v, by), odd = _mm256_mul_epu32(_mm256_srli_epi64(v, 32), by);
    *high = (ds_vec_u32)_mm256_blend_epi32(odd, _mm256_shuffle_epi32(even, 0xf5), 0x55);
    *low = (ds_vec_u32)_mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xa0), 0xaa);
#else
    for (int i = 0; i < DS_LANES; i++) {
        uint64_t product = (uint64_t)a[i] * m;
        (*high)[i] = (uint32_t)(product >> 32);
        (*low)[i] = (uint32_t)product;
    }
#endif
}

/* Lane l is number (l % 4) * DS_LANES / 4 + l / 4: of the four words of these counters, interleaving
 * within each four lanes then gives vectors of words in their order. */
DS_INLINE ds_vec_u32 ds_random_lanes(void) {
    ds_vec_u32 lanes;
    for (int l = 0; l < DS_LANES; l++) lanes[l] = (uint32_t)(l % 4 * (DS_LANES / 4) + l / 4);
    return lanes;
}

/* Stores the words w[0] to w[3] of such counters in the order of the counters. */
DS_INLINE void ds_random_store(uint32_t *to, const ds_vec_u32 w[4]) {
#if DS_LANES == 16
    __m512i a = _mm512_unpacklo_epi32((__m512i)w[0], (__m512i)w[1]), b = _mm512_unpackhi_epi32((__m512i)w[0], (__m512i)w[1]);
    __m512i c = _mm512_unpacklo_epi32((__m512i)w[2], (__m512i)w[3]), d = _mm512_unpackhi_epi32((__m512i)w[2], (__m512i)w[3]);
    _mm512_storeu_si512(to, _mm512_unpacklo_epi64(a, c));
    _mm512_storeu_si512(to + 16, _mm512_unpackhi_epi64(a, c));
    _mm512_storeu_si512(to + 32, _mm512_unpacklo_epi64(b, d));
    _mm512_storeu_si512(to + 48, _mm512_unpackhi_epi64(b, d));
#elif DS_LANES == 8
    __m256i a = _mm256_unpacklo_epi32((__m256i)w[0], (__m256i)w[1]), b = _mm256_unpackhi_epi32((__m256i)w[0], (__m256i)w[1]);
    __m256i c = _mm256_unpacklo_epi32((__m256i)w[2], (__m256i)w[3]), d = _mm256_unpackhi_epi32((__m256i)w[2], (__m256i)w[3]);
    _mm256_storeu_si256((__m256i *)to, _mm256_unpacklo_epi64(a, c));
    _mm256_storeu_si256((__m256i *)to + 1, _mm256_unpackhi_epi64(a, c));
    _mm256_storeu_si256((__m256i *)to + 2, _mm256_unpacklo_epi64(b, d));
    _mm256_storeu_si256((__m256i *)to + 3, _mm256_unpackhi_epi64(b, d));
#else
    for (int l = 0; l < DS_LANES; l++)
        for (int word = 0; word < 4; word++) to[4 * l + word] = w[word][l];
#endif
}

/* The words of DS_LANES counters from `counter` on. */
DS_INLINE void ds_random_step(uint32_t *to, uint64_t seed, uint64_t counter) {
    ds_vec_u32 zero = {0};
    ds_vec_u32 low = ds_random_lanes() + (uint32_t)counter;
    /* A lane that is less than the first one has passed 2^32. */
    ds_vec_u32 carry = (ds_vec_u32)(low < zero + (uint32_t)counter);
    ds_vec_u32 c[4] = {low, zero + (uint32_t)(counter >> 32) - carry, zero, zero};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        ds_vec_u32 high0, low0, high1, low1;
        ds_random_product(c[0], 0xd2511f53, &high0, &low0);
        ds_random_product(c[2], 0xcd9e8d57, &high1, &low1);
        c[0] = high1 ^ c[1] ^ key[0];
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key[1];
        c[3] = low0;
        key[0] += 0x9e3779b9;
        key[1] += 0xbb67ae85;
    }
    ds_random_store(to, c);
}

/* The words from `position` on, `count` of them, at most DS_RANDOM_TILE; as many more as a pair of
 * vectors has may be read behind them. */
__attribute__((noinline, unused)) static const uint32_t *ds_random_words(ds_random *r, uint64_t seed, uint64_t position, int64_t count) {
    int64_t before = (int64_t)(position % 4);
    for (int64_t i = 0; i < before + count; i += DS_RANDOM_STEP)
        ds_random_step(r->words + i, seed, (position + (uint64_t)i) / 4);
    return r->words + before;
}

/* Which of DS_LANES words give a uniform number, of their upper 24 bits, of at least `least` / 2^24:
 * ones and zeros. */
DS_INLINE ds_vec_u32 ds_random_at_least(const uint32_t *words, int32_t least) {
    ds_vec_u32 w;
    __builtin_memcpy(&w, words, sizeof w);
    typedef int32_t lanes __attribute__((vector_size(DS_LANES * 4)));
    return (ds_vec_u32)((lanes)(w >> 8) >= least);
}

#endif
