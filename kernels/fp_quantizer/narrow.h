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

/* A format as the nearest code needs it. */
typedef struct {
    ds_vec least;               /* below, steps are those of the least exponent */
    ds_vec_u32 many, size;      /* what makes 2^23 steps of a number; a code's bits but for its sign */
    ds_vec_u32 of_exponent, of_sign; /* how far these are shifted down */
} nearest;

DS_INLINE nearest nearest_of(format f) {
    const unsigned int shift = (unsigned int)(23 - f.mantissa), size = (1u << (f.bits - 1)) - 1;
    const float least = power(1 - f.bias);
    const ds_vec_u32 none = {0};
    return (nearest){
        .least = ds_splat(least),
        .many = none + ((shift << 23) + (-(DS_BITS_OF(least) >> shift) & size)),
        .size = none + size,
        .of_exponent = none + shift,
        .of_sign = none + (32 - (unsigned int)f.bits),
    };
}

/* Compilers take counts that are a vector for many of one lane. */
DS_INLINE ds_vec_u32 shifted_by(ds_vec_u32 v, ds_vec_u32 by) {
#if DS_LANES == 16
    return (ds_vec_u32)_mm512_srlv_epi32((__m512i)v, (__m512i)by);
#elif DS_LANES == 8
    return (ds_vec_u32)_mm256_srlv_epi32((__m256i)v, (__m256i)by);
#else
    return v >> by[0];
#endif
}

/* Codes of finite numbers that are at most the greatest, but for rounding, which the nearest code does not
 * see; with their sign, which a number that rounds to 0 keeps. A sum with 2^23 of a number's steps has
 * steps for units of the last place; what the exponent adds to a code is in the sum already, but for what
 * is above the code's bits. */
DS_INLINE ds_vec_u32 nearest_codes(ds_vec v, nearest to) {
#if DS_LANES == 16 && defined(__AVX512DQ__) /* the greater size, with the number's sign */
    ds_vec_u32 exponent = (ds_vec_u32)_mm512_range_ps((__m512)v, (__m512)to.least, 3) & 0xff800000;
    ds_vec sum = v + (ds_vec)(exponent + to.many);
#else
    ds_vec_u32 exponent = (ds_vec_u32)ds_vmax(ds_vabs(v), to.least) & 0x7f800000;
    ds_vec sum = ds_vabs(v) + (ds_vec)(exponent + to.many);
#endif
    ds_vec_u32 code = (ds_vec_u32)sum + shifted_by(exponent, to.of_exponent), sign = shifted_by((ds_vec_u32)v, to.of_sign);
#if DS_LANES == 16
    return (ds_vec_u32)_mm512_ternarylogic_epi32((__m512i)to.size, (__m512i)code, (__m512i)sign, 0xca);
#else
    return (code & to.size) | (sign & ~to.size);
#endif
}

/* Codes of sizes, those towards 0 or the next ones up, as likely as they are near. */
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

/* Codes of any numbers, with their sign; NaN is 0. `words` decide where there are some. */
DS_INLINE ds_vec_u32 any_codes(ds_vec v, format f, const uint32_t *words) {
    v = (ds_vec)((ds_vec_u32)v & (ds_vec_u32)(v == v));
    ds_vec size = ds_vmin(ds_vabs(v), ds_splat(f.greatest));
    if (!words) return nearest_codes(ds_vcopysign(size, v), nearest_of(f));
    return random_codes(size, f, words) | ((ds_vec_u32)v >> 31) << (unsigned int)(f.bits - 1);
}

/* Eight codes, one behind the other, to a byte each, or four of 12 bits to two bytes. */
DS_INLINE uint64_t ones_of(int bits) { return bits == 12 ? 0x0fff0fff0fff0fff : ((1u << bits) - 1) * 0x0101010101010101; }

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
