/* Quantised values: what they are, and the way between memory, f32 and them.
 *
 * Arithmetic is f32, one rounding an operation, in the order that ops/quantizer/quantizer.ops tells.
 */
#ifndef DS_QUANTIZER_VALUES_H
#define DS_QUANTIZER_VALUES_H

#include "ds_cpu_lanes.h"
#include "ds_cpu_mixed.h"
#include "ds_cpu_narrow.h"

typedef int8_t ds_vec_i8 __attribute__((vector_size(DS_LANES)));
typedef uint16_t pairs_u16 __attribute__((vector_size(DS_LANES)));
typedef uint8_t pairs_u8 __attribute__((vector_size(DS_LANES / 2)));

enum {
    BLOCK = 4096,              /* values in the buffer */
    CHUNK = 16 * BLOCK,        /* of a group that threads share */
    WORTH_A_THREAD = 16 * 1024, /* elements */
    QUAD = 4 * DS_LANES, /* values whose bytes fill a vector */
    PAD = QUAD,
};

/* 2^23 * 1.5: added and taken away, it leaves a whole number, ties to even; added, that number's low
 * bits are those of the sum. */
#define WHOLE 12582912.0f

/* q = clamp(round((x - offset) * scale)), x ~ q * step + offset. */
typedef struct {
    float scale, step, offset;
} params;

/* Chunks of a group. */
DS_INLINE int64_t chunks_of(int64_t length) { return length <= CHUNK ? 1 : ds_div_up(length, CHUNK); }

/* What turns values into numbers. */
typedef struct {
    ds_vec offset, scale, least, most;
} scaling;

DS_INLINE scaling scaling_of(params p, float levels) {
    return (scaling){ds_splat(p.offset), ds_splat(p.scale), ds_splat(-levels), ds_splat(levels - 1)};
}

/* The values' numbers before rounding, from -levels to levels - 1; NaN gives -levels. */
DS_INLINE ds_vec scaled(ds_vec v, scaling by) {
    return ds_vmin(ds_vmax((v - by.offset) * by.scale, by.least), by.most);
}

/* Values on their way; compilers keep arrays of vectors in memory. */
typedef struct {
    ds_vec a, b, c, d;
} quad;

DS_INLINE quad load_quad(const void *x, uint32_t t) {
    return (quad){ds_load(x, 0, t), ds_load(x, DS_LANES, t), ds_load(x, 2 * DS_LANES, t), ds_load(x, 3 * DS_LANES, t)};
}

/* The same where the dtype is asked for each quad: memory hides it. */
DS_INLINE quad load_quad_of(const void *x, uint32_t dtype) {
    quad v = {{0}};
    DS_WITH_FLOAT(t, dtype, v = load_quad(x, t));
    return v;
}

DS_INLINE quad add_quads(quad x, quad y) { return (quad){x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }

/* Whether q * step + offset is never NaN nor, unless 0, a denormal of bf16: both parts are multiples of
 * 2^-123. */
DS_INLINE int is_plain(params p) {
    float step = p.step < 0 ? -p.step : p.step, offset = p.offset < 0 ? -p.offset : p.offset;
    return step >= 0x1p-100f && step <= 0x1p+60f && (offset == 0 || offset >= 0x1p-100f) && offset <= 0x1p+60f;
}

/* Whether none of these is NaN or, unless 0, below 2^-126; asked only where that makes a difference. */
DS_INLINE int is_plain_pair(ds_vec2 v) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
    enum { QUIET_NAN = 0x01, DENORMAL = 0x20, SIGNALING_NAN = 0x80, ANY = QUIET_NAN | DENORMAL | SIGNALING_NAN };
    return !(_mm512_fpclass_ps_mask((__m512)v.a, ANY) | _mm512_fpclass_ps_mask((__m512)v.b, ANY));
#else
    (void)v;
    return 0;
#endif
}

/* Values [at, at + DS_LANES) of quantised ones, one or two in a byte, of which `q` is the first; `n` of
 * them are there, and the other lanes are anything. */
DS_INLINE ds_vec unpack(const int8_t *q, int64_t at, int64_t n, int64_t per_byte) {
    int8_t few[DS_LANES];
    if (n < DS_LANES) {
        __builtin_memset(few, 0, sizeof few);
        __builtin_memcpy(few, q + (at >> (per_byte - 1)), (size_t)(n >> (per_byte - 1)));
    }
    const int8_t *from = n < DS_LANES ? few : q + (at >> (per_byte - 1));
    if (per_byte == 1) return ds_bytes_at(from, 1);
    pairs_u8 both;
    __builtin_memcpy(&both, from, sizeof both);
    pairs_u16 wide = __builtin_convertvector(both, pairs_u16);
    ds_vec_i8 each = (ds_vec_i8)((wide & 0xf) | (wide & 0xf0) << 4);
    each = (each ^ 8) - 8; /* the sign of four bits */
    return ds_bytes_at(&each, 1);
}

/* The numbers of a group's quantised values; those of 4 bits are few enough for a table. */
typedef struct {
    params p;
    ds_vec of_nibble;
} numbers;

DS_INLINE numbers numbers_of(float step, float offset) {
    numbers n = {.p = {.step = step, .offset = offset}};
    for (int lane = 0; lane < DS_LANES; lane++) n.of_nibble[lane] = (float)(lane < 8 ? lane : lane - 16);
    n.of_nibble = n.of_nibble * step + offset;
    return n;
}

/* The first `n` of the numbers of [at, at + DS_LANES). */
DS_INLINE ds_vec number_first(const int8_t *q, int64_t at, int64_t n, const numbers *of, int64_t per_byte) {
    return unpack(q, at, n, per_byte) * of->p.step + of->p.offset;
}

/* The numbers of [at, at + 2 * DS_LANES). */
DS_INLINE ds_vec2 number_pair(const int8_t *q, int64_t at, const numbers *of, int64_t per_byte) {
#if DS_LANES == 16
    if (per_byte == 2) {
        const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(q + at / 2)));
        /* Only the lowest four bits of an index count. */
        __m512 even = _mm512_permutexvar_ps(bytes, (__m512)of->of_nibble);
        __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), (__m512)of->of_nibble);
        return (ds_vec2){(ds_vec)_mm512_permutex2var_ps(even, low, odd), (ds_vec)_mm512_permutex2var_ps(even, high, odd)};
    }
#endif
    return (ds_vec2){number_first(q, at, DS_LANES, of, per_byte), number_first(q, at + DS_LANES, DS_LANES, of, per_byte)};
}

#endif
