/* Random words, the same on every accelerator: Philox4x32-10 (Salmon et al. 2011, "Parallel random
 * numbers: as easy as 1, 2, 3"), a function of seed and position. Compiled by what compiles
 * ds_math.h; core/src/rng.rs is the definition.
 *
 * Word `i` of a draw that starts at `offset` is lane (offset + i) % 4 of counter (offset + i) / 4.
 */
#ifndef DS_PHILOX_H
#define DS_PHILOX_H

#include "ds_math.h"

#if defined(__OPENCL_C_VERSION__)
typedef ulong ds_u64;
#else
typedef unsigned long long ds_u64;
#endif

typedef struct {
    unsigned int a, b, c, d;
} ds_philox4;

DS_MATH_FN ds_philox4 ds_philox_round(ds_philox4 x, unsigned int key0, unsigned int key1) {
    ds_u64 p = (ds_u64)x.a * 0xD2511F53u, q = (ds_u64)x.c * 0xCD9E8D57u;
    ds_philox4 y;
    y.a = (unsigned int)(q >> 32) ^ x.b ^ key0;
    y.b = (unsigned int)q;
    y.c = (unsigned int)(p >> 32) ^ x.d ^ key1;
    y.d = (unsigned int)p;
    return y;
}

/* The four words of a counter. Keys grow by the golden ratio and by sqrt(3) - 1. */
DS_MATH_FN ds_philox4 ds_philox(ds_u64 counter, ds_u64 seed) {
    unsigned int k = (unsigned int)seed, l = (unsigned int)(seed >> 32);
    ds_philox4 x;
    x.a = (unsigned int)counter;
    x.b = (unsigned int)(counter >> 32);
    x.c = x.d = 0;
    x = ds_philox_round(x, k, l);
    x = ds_philox_round(x, k + 0x9E3779B9u, l + 0xBB67AE85u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 2u, l + 0xBB67AE85u * 2u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 3u, l + 0xBB67AE85u * 3u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 4u, l + 0xBB67AE85u * 4u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 5u, l + 0xBB67AE85u * 5u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 6u, l + 0xBB67AE85u * 6u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 7u, l + 0xBB67AE85u * 7u);
    x = ds_philox_round(x, k + 0x9E3779B9u * 8u, l + 0xBB67AE85u * 8u);
    return ds_philox_round(x, k + 0x9E3779B9u * 9u, l + 0xBB67AE85u * 9u);
}

/* The counter that holds position `position`; positions wrap at 2^64. */
DS_MATH_FN ds_u64 ds_philox_counter(ds_u64 position) { return position >> 2; }

/* A word as a number in [0, 1): its upper 24 bits, which f32 holds exactly. */
DS_MATH_FN float ds_uniform(unsigned int word) { return (float)(int)(word >> 8) * 5.9604644775390625e-8f; }

#endif
