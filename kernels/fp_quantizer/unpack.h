/* Narrow floats on their way out of memory, a pair of vectors of codes at a time. */
#ifndef DS_FP_QUANTIZER_UNPACK_H
#define DS_FP_QUANTIZER_UNPACK_H

#include "ds_cpu_lanes.h"
#include "ds_cpu_mixed.h"
#include "narrow.h"

enum {
    PAIR = 2 * DS_LANES,
    SLACK = DS_LANES == 16 ? 0 : 16, /* bytes that are read behind a pair's */
    OF_LANE = DS_LANES == 4 ? 0 : 8, /* codes of 128 bits of a pair of 16 bits each */
};

/* Where codes of some bits lie: each is part of two bytes, from which a product moves it to the upper end
 * of 16 bits. */
typedef struct {
    ds_vec_i16 words, up;
    uint8_t bytes[sizeof(ds_vec_i16)];
    int bits;
} places;

static places places_of(int bits) {
    places p = {.bits = bits};
    for (int code = 0; code < PAIR && OF_LANE; code++) {
        int lane = code / 8, bit = code % 8 * bits;
        p.words[code] = (int16_t)(lane * bits / 2 + code % 8);
        p.up[code] = (int16_t)(1 << (16 - bits - bit % 8));
        p.bytes[2 * code] = (uint8_t)(bit / 8);
        p.bytes[2 * code + 1] = (uint8_t)(bit / 8 + 1);
    }
    return p;
}

/* Codes at the upper end of 16 bits; what is below is anything. */
DS_INLINE ds_vec_i16 upper_codes(const uint8_t *from, const places *p) {
#if DS_LANES == 16
    __m512i v = _mm512_maskz_loadu_epi8((1ull << (4 * p->bits)) - 1, from);
    v = _mm512_permutexvar_epi16((__m512i)p->words, v);
    return (ds_vec_i16)_mm512_mullo_epi16(_mm512_shuffle_epi8(v, _mm512_loadu_si512(p->bytes)), (__m512i)p->up);
#elif DS_LANES == 8
    __m128i low = _mm_loadu_si128((const __m128i *)from), high = _mm_loadu_si128((const __m128i *)(from + p->bits));
    __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    v = _mm256_shuffle_epi8(v, _mm256_loadu_si256((const __m256i *)p->bytes));
    return (ds_vec_i16)_mm256_mullo_epi16(v, (__m256i)p->up);
#else
    ds_vec_i16 v;
    for (int code = 0; code < PAIR; code++) {
        int bit = code * p->bits;
        uint16_t both;
        __builtin_memcpy(&both, from + bit / 8, sizeof both);
        v[code] = (int16_t)(both << (16 - p->bits - bit % 8));
    }
    return v;
#endif
}

/* Each shifted down by `by`. */
DS_INLINE ds_vec_i16 down(ds_vec_i16 v, int by) {
#if DS_LANES == 16
    return (ds_vec_i16)_mm512_srlv_epi16((__m512i)v, _mm512_set1_epi16((short)by));
#elif DS_LANES == 8
    return (ds_vec_i16)_mm256_srl_epi16((__m256i)v, _mm_cvtsi32_si128(by));
#elif defined(__SSE2__)
    return (ds_vec_i16)_mm_srl_epi16((__m128i)v, _mm_cvtsi32_si128(by));
#else
    typedef uint16_t whole __attribute__((vector_size(sizeof(ds_vec_i16))));
    return (ds_vec_i16)((whole)v >> (uint16_t)by);
#endif
}

typedef struct {
    ds_vec_u16 a, b;
} halves;

DS_INLINE halves halves_of(ds_vec_i16 v) {
#if DS_LANES == 16
    return (halves){(ds_vec_u16)_mm512_castsi512_si256((__m512i)v), (ds_vec_u16)_mm512_extracti64x4_epi64((__m512i)v, 1)};
#elif DS_LANES == 8
    return (halves){(ds_vec_u16)_mm256_castsi256_si128((__m256i)v), (ds_vec_u16)_mm256_extracti128_si256((__m256i)v, 1)};
#else
    halves h;
    __builtin_memcpy(&h, &v, sizeof v);
    return h;
#endif
}

/* The numbers that codes stand for. */
DS_INLINE ds_vec decode(ds_vec_u16 narrow, format f) {
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

/* What a group's codes are multiplied by. */
typedef struct {
    float first, then; /* products of a code; 0 for `then` where one is enough */
    int plain;         /* no result is NaN or, unless 0, below 2^-126 */
} factors;

/* Codes read as f16 take a power of two, which may be part of the step but where that rounds. */
static factors factors_of(format f, float step) {
    float size = step < 0 ? -step : step;
    factors by = {.plain = size >= 0x1p-50f && size <= 0x1p50f}; /* codes are not below 2^-66 */
    if (f.of_half == 0) by.first = step;
    else if (by.plain) by.first = f.of_half * step;
    else by.first = f.of_half, by.then = step;
    return by;
}

/* The numbers of a pair of codes. Those that f16 has exponents for are moved to where it has them,
 * denormals and all. */
#if DS_LANES == 4 /* lane by lane, and long */
static __attribute__((noinline))
#else
DS_INLINE
#endif
ds_vec2 numbers_of(const uint8_t *from, const places *p, format f, factors by) {
    ds_vec_i16 upper = upper_codes(from, p);
    ds_vec2 v;
    if (f.of_half != 0) {
        int below = 10 - f.mantissa, by_bits = 16 - f.bits - below; /* the sign is on its own */
        int16_t size = (int16_t)(((1 << (f.bits - 1)) - 1) << below);
        halves h = halves_of((down(upper, by_bits) & size) | (upper & INT16_MIN));
        v = (ds_vec2){ds_load(&h.a, 0, DS_F16), ds_load(&h.b, 0, DS_F16)};
    } else {
        halves h = halves_of(down(upper, 16 - f.bits));
        v = (ds_vec2){decode(h.a, f), decode(h.b, f)};
    }
    v = (ds_vec2){v.a * by.first, v.b * by.first};
    if (by.then == 0) return v;
    return (ds_vec2){v.a * by.then, v.b * by.then};
}

#endif
