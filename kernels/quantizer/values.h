/* Quantised values: what they are, and the way between memory, f32 and them.
 *
 * Arithmetic is f32, one rounding an operation, in the order that ops/quantizer/quantizer.ops tells.
 */
#ifndef DS_QUANTIZER_VALUES_H
#define DS_QUANTIZER_VALUES_H

#include "ds_cpu_math.h"
#include "ds_cpu_narrow.h"

typedef int8_t ds_vec_i8 __attribute__((vector_size(DS_LANES)));
typedef uint16_t pairs_u16 __attribute__((vector_size(DS_LANES)));
typedef uint8_t pairs_u8 __attribute__((vector_size(DS_LANES / 2)));

enum {
    BLOCK = 4096,              /* values in the buffer */
    CHUNK = 16 * BLOCK,        /* of a group that threads share */
    WORTH_A_THREAD = 16 * 1024, /* elements */
    PAD = DS_LANES,
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

/* The values' numbers before rounding, from -levels to levels - 1; NaN gives -levels. */
DS_INLINE ds_vec scaled(ds_vec v, params p, float levels) {
    v = (v - p.offset) * p.scale;
    return ds_vmin(ds_vmax(v, ds_splat(-levels)), ds_splat(levels - 1));
}

/* Two vectors, one after the other, past the caches where `streams` and the address is aligned. */
DS_INLINE void store_two(void *y, int64_t at, ds_vec a, ds_vec b, uint32_t t, int streams) {
    char *p = ds_at(y, at, t);
    if (t == DS_F32) {
        ds_put(p, (ds_vec_u32)a, streams);
        ds_put(p + sizeof a, (ds_vec_u32)b, streams);
        return;
    }
    ds_vec_u16 half[2] = {ds_vec_to_half(a, t), ds_vec_to_half(b, t)};
#if DS_LANES == 16 /* compilers take the way through memory, and the load waits for both stores */
    ds_vec_u32 bits = (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)half[0]), (__m256i)half[1], 1);
#else
    ds_vec_u32 bits;
    __builtin_memcpy(&bits, half, sizeof bits);
#endif
    ds_put(p, bits, streams);
}

/* Elements of T from `at` on, as f32; behind the last one, lanes of 0. */
DS_INLINE void read_values(const void *x, int64_t at, int64_t n, float *values, uint32_t t) {
    int64_t i = 0;
    for (; i + DS_LANES <= n; i += DS_LANES) ds_store(values, i, ds_load(x, at + i, t), DS_F32);
    if (i < n) ds_store(values, i, ds_load_first(n - i, x, at + i, t), DS_F32);
}

/* Values [at, at + DS_LANES) of quantised ones of which `q` is the first; `n` of them are there, and the
 * other lanes are anything. */
DS_INLINE ds_vec unpack(const int8_t *q, int64_t at, int64_t n, int64_t per_byte) {
    int8_t few[DS_LANES];
    if (n < DS_LANES) {
        __builtin_memset(few, 0, sizeof few);
        __builtin_memcpy(few, q + at / per_byte, (size_t)(n / per_byte));
    }
    const int8_t *from = n < DS_LANES ? few : q + at / per_byte;
    if (per_byte == 1) return ds_bytes_at(from, 1);
    pairs_u8 both;
    __builtin_memcpy(&both, from, sizeof both);
    pairs_u16 wide = __builtin_convertvector(both, pairs_u16);
    ds_vec_i8 each = (ds_vec_i8)((wide & 0xf) | (wide & 0xf0) << 4);
    each = (each ^ 8) - 8; /* the sign of four bits */
    return ds_bytes_at(&each, 1);
}

#endif
