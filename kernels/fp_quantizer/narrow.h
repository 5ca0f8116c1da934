/* Narrow floats of which every code is a number: f32 to codes and back.
 * core/src/op/minifloat.rs is the definition.
 */
#ifndef DS_FP_QUANTIZER_NARROW_H
#define DS_FP_QUANTIZER_NARROW_H

#include "ds_cpu_math.h"

enum {
    CHUNK = 64 * 1024,          /* of a group that threads share */
    WORTH_A_THREAD = 16 * 1024, /* elements */
};

typedef struct {
    int bits, mantissa, bias;
    float greatest;
} format;

/* As codes of `per` values lie in `bytes` bytes. */
static format format_of(int64_t per, int64_t bytes, int64_t mantissa) {
    format f = {.bits = (int)(8 * bytes / per), .mantissa = (int)mantissa};
    int exponent = f.bits - 1 - f.mantissa;
    f.bias = (1 << (exponent - 1)) - 1;
    unsigned int top = (1u << (exponent + f.mantissa)) - 1;
    f.greatest = DS_FLOAT_OF((top << (23 - f.mantissa)) + ((unsigned int)(127 - f.bias) << 23));
    if (f.bits == 12 && f.mantissa == 4) f.greatest = 510;
    return f;
}

/* Chunks of a group. */
DS_INLINE int64_t chunks_of(int64_t length) { return length <= CHUNK ? 1 : ds_div_up(length, CHUNK); }

/* 2^exponent, a normal number. */
DS_INLINE float power(int exponent) { return DS_FLOAT_OF((unsigned int)(exponent + 127) << 23); }

/* The size of the numbers as codes, at most the greatest; `words` decide where there are some. */
DS_INLINE ds_vec_u32 code_sizes(ds_vec v, format f, const uint32_t *words) {
    ds_vec size = ds_vmin(ds_vmax(ds_vabs(v), ds_splat(0)), ds_splat(f.greatest)); /* NaN is 0 */
    ds_vec_u32 u = (ds_vec_u32)size, normal, small;
    unsigned int shift = (unsigned int)(23 - f.mantissa), rebias = (unsigned int)(127 - f.bias) << f.mantissa;
    float least = power(1 - f.bias);
    if (words) {
        ds_vec_u32 word;
        __builtin_memcpy(&word, words, sizeof word);
        word >>= 8;
        ds_vec_u32 rest = (u & ((1u << shift) - 1)) << (24 - shift);
        normal = (u >> shift) - (ds_vec_u32)(word < rest) - rebias;
        ds_vec steps = size * power(f.bias - 1 + f.mantissa);
        ds_vec_i32 whole = __builtin_convertvector(ds_vmin(steps, ds_splat(1 << 23)), ds_vec_i32);
        ds_vec part = steps - __builtin_convertvector(whole, ds_vec);
        ds_vec uniform = __builtin_convertvector((ds_vec_i32)word, ds_vec) * 0x1p-24f;
        small = (ds_vec_u32)(whole - (uniform < part));
    } else {
        normal = ((u + (1u << (shift - 1)) - 1 + (u >> shift & 1)) >> shift) - rebias;
        /* A sum with 2^23 steps has steps for units of the last place. */
        ds_vec many = ds_splat(power(1 - f.bias - f.mantissa + 23));
        small = (ds_vec_u32)(size + many) - (ds_vec_u32)many;
    }
    ds_vec_u32 is_small = (ds_vec_u32)(size < least);
    return (small & is_small) | (normal & ~is_small);
}

/* Codes with their sign; that of a number which rounds to 0 is kept, NaN is 0. */
DS_INLINE ds_vec_u32 encode(ds_vec v, format f, const uint32_t *words) {
    ds_vec_u32 number = (ds_vec_u32)(v == v), size = code_sizes(v, f, words);
    return (size | ((ds_vec_u32)v >> 31) << (f.bits - 1)) & number;
}

DS_INLINE ds_vec decode(ds_vec_u32 code, format f) {
    unsigned int shift = (unsigned int)(23 - f.mantissa), one = 1u << 23;
    ds_vec_u32 size = (code & ((1u << (f.bits - 1)) - 1)) << shift;
    ds_vec_u32 bits = size + ((unsigned int)(127 - f.bias) << 23);
    /* Denormals lack the leading bit: put it there and take it away. */
    ds_vec small = (ds_vec)(bits + one) - power(1 - f.bias);
    ds_vec_i32 is_small = size < one;
    ds_vec value = ds_vselect(is_small, small, (ds_vec)bits);
    return (ds_vec)((ds_vec_u32)value | (code >> (f.bits - 1)) << 31);
}

/* Four codes, one behind the other, to 16 bits each, and back. */
DS_INLINE uint64_t spread(uint64_t codes, int bits) {
    uint64_t one = (1u << bits) - 1;
#if defined(__BMI2__)
    return __builtin_ia32_pdep_di(codes, one * 0x0001000100010001);
#else
    uint64_t all = 0;
    for (int i = 0; i < 4; i++) all |= (codes >> (bits * i) & one) << (16 * i);
    return all;
#endif
}

DS_INLINE uint64_t gather(uint64_t codes, int bits) {
    uint64_t one = (1u << bits) - 1;
#if defined(__BMI2__)
    return __builtin_ia32_pext_di(codes, one * 0x0001000100010001);
#else
    uint64_t all = 0;
    for (int i = 0; i < 4; i++) all |= (codes >> (16 * i) & one) << (bits * i);
    return all;
#endif
}

#endif
