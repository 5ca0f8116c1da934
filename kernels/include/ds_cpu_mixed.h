/* Pairs of vectors in the order of memory, for CPU kernels whose tensors differ in dtype; the pairs of
 * ds_cpu_simd.h have an order that is their dtype's own.
 */
#ifndef DS_CPU_MIXED_H
#define DS_CPU_MIXED_H

#include "ds_cpu_simd.h"

DS_INLINE ds_vec2 ds_load2_in_order(const void *data, int64_t i, uint32_t t) {
    return (ds_vec2){ds_load(data, i, t), ds_load(data, i + DS_LANES, t)};
}

/* As `ds_store2`, past the caches where `streams` and the address is aligned. What is `plain`, neither
 * NaN nor below 2^-126 unless 0, or need not be kept there, has a faster way to bf16. */
DS_INLINE void ds_store2_in_order(void *data, int64_t i, ds_vec2 v, uint32_t t, int plain, int streams) {
    char *p = ds_at(data, i, t);
    if (t != DS_BF16) {
        ds_store2(data, i, v, t, streams);
#if defined(__AVX512BF16__)
    } else if (plain) {
        ds_put(p, (ds_vec_u32)_mm512_cvtne2ps_pbh((__m512)v.b, (__m512)v.a), streams);
#endif
    } else {
        (void)plain;
        ds_vec_u16 half[2] = {ds_vec_to_half(v.a, t), ds_vec_to_half(v.b, t)};
#if DS_LANES == 16 /* compilers take the way through memory, and the load waits for both stores */
        ds_vec_u32 bits = (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)half[0]), (__m256i)half[1], 1);
#else
        ds_vec_u32 bits;
        __builtin_memcpy(&bits, half, sizeof bits);
#endif
        ds_put(p, bits, streams);
    }
}

#endif
