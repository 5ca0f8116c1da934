/* Random words for CPU kernels: Philox4x32-10 as the host has it (core/src/rng.rs), many counters at a
 * time. Word `i` of a draw from (seed, offset) is lane p % 4 of counter p / 4 for p = offset + i, so
 * that an element's number does not depend on who draws it.
 *
 * Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
 */
#ifndef DS_CPU_RANDOM_H
#define DS_CPU_RANDOM_H

#include "ds_cpu_simd.h"

typedef uint64_t ds_vec_u64 __attribute__((vector_size(DS_LANES * 4)));

/* Counters in a vector, chains of vectors whose rounds do not wait for each other, words that are made
 * at a time, and most that are asked for at a time. */
enum {
    DS_RANDOM_COUNTERS = DS_LANES / 2,
    DS_RANDOM_CHAINS = 2,
    DS_RANDOM_STEP = 4 * DS_RANDOM_COUNTERS * DS_RANDOM_CHAINS,
    DS_RANDOM_TILE = 1024,
};

/* A tile of words: those from an aligned position on. */
typedef struct {
    _Alignas(64) uint32_t words[DS_RANDOM_TILE + 2 * DS_RANDOM_STEP];
} ds_random;

/* The products of the lower halves of the lanes of `a` with `m`. */
DS_INLINE ds_vec_u64 ds_random_product(ds_vec_u64 a, uint32_t m) {
#if DS_LANES == 16
    return (ds_vec_u64)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(m));
#elif DS_LANES == 8
    return (ds_vec_u64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(m));
#elif defined(__SSE2__)
    return (ds_vec_u64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(m));
#else
    return (a & 0xffffffff) * m;
#endif
}

/* The upper half of `product`, exclusive or `word` and `key`. */
DS_INLINE ds_vec_u64 ds_random_word(ds_vec_u64 product, ds_vec_u64 word, uint64_t key) {
#if DS_LANES == 16
    return (ds_vec_u64)_mm512_ternarylogic_epi64((__m512i)(product >> 32), (__m512i)word,
                                                 _mm512_set1_epi64((int64_t)key), 0x96);
#else
    return product >> 32 ^ word ^ key;
#endif
}

/* Stores the words w[0] to w[3], lower halves, of a vector of counters in the order of the counters. */
DS_INLINE void ds_random_store(uint32_t *to, const ds_vec_u64 w[4]) {
    ds_vec_u64 a = (w[0] & 0xffffffff) | w[1] << 32, b = (w[2] & 0xffffffff) | w[3] << 32;
#if DS_LANES == 16
    _mm512_storeu_si512(to, _mm512_unpacklo_epi64((__m512i)a, (__m512i)b));
    _mm512_storeu_si512(to + 16, _mm512_unpackhi_epi64((__m512i)a, (__m512i)b));
#elif DS_LANES == 8
    _mm256_storeu_si256((__m256i *)to, _mm256_unpacklo_epi64((__m256i)a, (__m256i)b));
    _mm256_storeu_si256((__m256i *)to + 1, _mm256_unpackhi_epi64((__m256i)a, (__m256i)b));
#else
    uint64_t in_order[4] = {a[0], b[0], a[1], b[1]};
    __builtin_memcpy(to, in_order, sizeof in_order);
#endif
}

/* The words of a step of counters from `counter` on. Of what lanes hold, lower halves count alone: a
 * product leaves its upper half there, and the next one does not look at it. */
DS_INLINE void ds_random_step(uint32_t *to, uint64_t seed, uint64_t counter) {
    ds_vec_u64 w[DS_RANDOM_CHAINS][4], zero = {0};
    uint64_t key0 = (uint32_t)seed, key1 = seed >> 32;
    for (int chain = 0; chain < DS_RANDOM_CHAINS; chain++) {
        ds_vec_u64 c;
        for (int l = 0; l < DS_RANDOM_COUNTERS; l++) /* as ds_random_store puts them in order */
            c[l] = (uint64_t)(chain * DS_RANDOM_COUNTERS + l % 2 * (DS_RANDOM_COUNTERS / 2) + l / 2);
        c += counter;
        /* The first round; words 2 and 3 are 0 before it. */
        w[chain][3] = ds_random_product(c, 0xd2511f53);
        w[chain][2] = ds_random_word(w[chain][3], zero, key1);
        w[chain][1] = zero;
        w[chain][0] = ds_random_word(c, zero, key0);
    }
    for (int round = 1; round < 10; round++) {
        key0 += 0x9e3779b9;
        key1 += 0xbb67ae85;
        for (int chain = 0; chain < DS_RANDOM_CHAINS; chain++) {
            ds_vec_u64 *of = w[chain];
            ds_vec_u64 product0 = ds_random_product(of[0], 0xd2511f53);
            ds_vec_u64 product1 = ds_random_product(of[2], 0xcd9e8d57);
            of[0] = ds_random_word(product1, of[1], key0);
            of[1] = product1;
            of[2] = ds_random_word(product0, of[3], key1);
            of[3] = product0;
        }
    }
    for (int chain = 0; chain < DS_RANDOM_CHAINS; chain++)
        ds_random_store(to + 4 * DS_RANDOM_COUNTERS * chain, w[chain]);
}

/* The words from `position` on, `count` of them, at most DS_RANDOM_TILE; as many more as a pair of
 * vectors has may be read behind them. */
__attribute__((noinline, unused)) static const uint32_t *ds_random_words(ds_random *r, uint64_t seed, uint64_t position, int64_t count) {
    int64_t before = (int64_t)(position % 4);
    for (int64_t i = 0; i < before + count; i += DS_RANDOM_STEP)
        ds_random_step(r->words + i, seed, (position + (uint64_t)i) / 4);
    return r->words + before;
}

#endif
