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
    float of_half; /* what a code read as f16 is multiplied by; 0 where f16 lacks its exponents */
} format;

/* 2^exponent, a normal number. */
DS_INLINE float power(int exponent) { return DS_FLOAT_OF((unsigned int)(exponent + 127) << 23); }

/* As codes of `per` values lie in `bytes` bytes. */
static format format_of(int64_t per, int64_t bytes, int64_t mantissa) {
    format f = {.bits = (int)(8 * bytes / per), .mantissa = (int)mantissa};
    int exponent = f.bits - 1 - f.mantissa;
    f.bias = (1 << (exponent - 1)) - 1;
    unsigned int top = (1u << (exponent + f.mantissa)) - 1;
    f.greatest = DS_FLOAT_OF((top << (23 - f.mantissa)) + ((unsigned int)(127 - f.bias) << 23));
    if (f.bits == 12 && f.mantissa == 4) f.greatest = 510;
    if (exponent < 5) f.of_half = power(15 - f.bias);
    return f;
}

/* Chunks of a group. */
DS_INLINE int64_t chunks_of(int64_t length) { return length <= CHUNK ? 1 : ds_div_up(length, CHUNK); }

/* Compilers take a count in a register of its own, which takes twice as long. */
DS_INLINE ds_vec_u32 shifted_down(ds_vec_u32 v, int by) {
#if DS_LANES == 16
    return (ds_vec_u32)_mm512_srlv_epi32((__m512i)v, _mm512_set1_epi32(by));
#elif DS_LANES == 8
    return (ds_vec_u32)_mm256_srlv_epi32((__m256i)v, _mm256_set1_epi32(by));
#else
    return v >> (unsigned int)by;
#endif
}

/* The size of the numbers, at most the greatest, as the nearest codes. A sum with 2^23 of a number's
 * steps has steps for units of the last place. */
DS_INLINE ds_vec_u32 nearest_codes(ds_vec size, format f) {
    ds_vec least = ds_splat(power(1 - f.bias)); /* below, steps are those of the least exponent */
    ds_vec_u32 exponent = (ds_vec_u32)ds_vmax(size, least) & 0x7f800000;
    ds_vec_u32 many = exponent + ((unsigned int)(23 - f.mantissa) << 23);
    ds_vec_u32 before = shifted_down(exponent - (ds_vec_u32)least, 23 - f.mantissa);
    return (ds_vec_u32)(size + (ds_vec)many) - many + before;
}

/* The same, or the next one up as likely as it is near. */
DS_INLINE ds_vec_u32 random_codes(ds_vec size, format f, const uint32_t *words) {
    ds_vec_u32 u = (ds_vec_u32)size, word;
    unsigned int shift = (unsigned int)(23 - f.mantissa), rebias = (unsigned int)(127 - f.bias) << f.mantissa;
    __builtin_memcpy(&word, words, sizeof word);
    word >>= 8;
    ds_vec_u32 rest = (u & ((1u << shift) - 1)) << (24 - shift);
    ds_vec_u32 normal = (u >> shift) - (ds_vec_u32)(word < rest) - rebias;
    ds_vec steps = size * power(f.bias - 1 + f.mantissa);
    ds_vec_i32 whole = __builtin_convertvector(ds_vmin(steps, ds_splat(1 << 23)), ds_vec_i32);
    ds_vec part = steps - __builtin_convertvector(whole, ds_vec);
    ds_vec uniform = __builtin_convertvector((ds_vec_i32)word, ds_vec) * 0x1p-24f;
    ds_vec_u32 small = (ds_vec_u32)(whole - (uniform < part));
    ds_vec_u32 is_small = (ds_vec_u32)(size < power(1 - f.bias));
    return (small & is_small) | (normal & ~is_small);
}

/* Codes with their sign; that of a number which rounds to 0 is kept, NaN is 0. `words` decide where
 * there are some. Without a NaN numbers are the greatest one by their scale at most, but for rounding,
 * which the nearest code does not see. */
DS_INLINE ds_vec_u32 encode(ds_vec v, format f, const uint32_t *words, int no_nan) {
    if (!no_nan) v = (ds_vec)((ds_vec_u32)v & (ds_vec_u32)(v == v));
    ds_vec size = ds_vabs(v);
    if (words || !no_nan) size = ds_vmin(size, ds_splat(f.greatest));
    ds_vec_u32 code = words ? random_codes(size, f, words) : nearest_codes(size, f);
    return code | (shifted_down((ds_vec_u32)v, 32 - f.bits) & (1u << (f.bits - 1)));
}

/* The numbers that codes stand for. */
DS_INLINE ds_vec decode(ds_vec_u16 narrow, format f) {
    if (f.of_half != 0) { /* moved to where f16 has its exponent, denormals and all */
        ds_vec_u16 sign = {0}, size = {0};
        sign += (uint16_t)(1u << (16 - f.bits));
        size += (uint16_t)(1u << (10 - f.mantissa));
        ds_vec_u16 half = (narrow & (uint16_t)((1u << (f.bits - 1)) - 1)) * size | ((narrow * sign) & 0x8000);
        return ds_load(&half, 0, DS_F16) * f.of_half;
    }
    unsigned int shift = (unsigned int)(23 - f.mantissa), one = 1u << 23;
    ds_vec_u32 code = __builtin_convertvector(narrow, ds_vec_u32);
    ds_vec_u32 size = (code & ((1u << (f.bits - 1)) - 1)) << shift;
    ds_vec_u32 bits = size + ((unsigned int)(127 - f.bias) << 23);
    /* Denormals lack the leading bit: put it there and take it away. */
    ds_vec small = (ds_vec)(bits + one) - power(1 - f.bias);
    ds_vec_i32 is_small = size < one;
    ds_vec value = ds_vselect(is_small, small, (ds_vec)bits);
    return (ds_vec)((ds_vec_u32)value | (code >> (f.bits - 1)) << 31);
}

/* Eight codes, one behind the other, to a byte each, or four of 12 bits to two bytes, and back. */
DS_INLINE uint64_t ones_of(int bits) { return bits == 12 ? 0x0fff0fff0fff0fff : ((1u << bits) - 1) * 0x0101010101010101; }

DS_INLINE uint64_t spread(uint64_t codes, int bits) {
#if defined(__BMI2__)
    return __builtin_ia32_pdep_di(codes, ones_of(bits));
#else
    int wide = bits == 12, to = wide ? 16 : 8;
    uint64_t all = 0, one = (1u << bits) - 1;
    for (int i = 0; i < 64 / to; i++) all |= (codes >> (bits * i) & one) << (to * i);
    return all;
#endif
}

DS_INLINE uint64_t gather(uint64_t codes, int bits) {
#if defined(__BMI2__)
    return __builtin_ia32_pext_di(codes, ones_of(bits));
#else
    int wide = bits == 12, to = wide ? 16 : 8;
    uint64_t all = 0, one = (1u << bits) - 1;
    for (int i = 0; i < 64 / to; i++) all |= (codes >> (to * i) & one) << (bits * i);
    return all;
#endif
}

/* Bytes of a code on its own. */
DS_INLINE int64_t code_size(int bits) { return bits == 12 ? 2 : 1; }

#endif
