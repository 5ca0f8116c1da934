/* A bit for an element, on a CPU.
 *
 * Limit: memory, eight elements of T on one side and a byte on the other. A word of bits is made of, or
 * made, 64 elements, a vector at a time; large results go past the caches.
 */
#include "ds_cpu_lanes.h"

/* packbits(x) -> bits, unpackbits(bits) -> x; an item is a byte of bits. */
enum { FROM, TO };
enum {
    WORD = 8, /* bytes of bits at a time */
    CHUNK = 2048,
    WIDTH = sizeof(ds_vec),
    AHEAD_BYTES = 2048, /* from what is read to what is fetched */
};

typedef uint8_t vec_u8 __attribute__((vector_size(WIDTH)));
typedef uint64_t vec_u64 __attribute__((vector_size(WIDTH)));

static void plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_arg_tensor(call, FROM, 0)->shape[0];
    out->phase[0].grain = CHUNK;
}

/* The bits of each byte the other way round: the first element is the highest bit of a byte, but the
 * lowest of a mask of lanes. */
DS_INLINE uint64_t turned(uint64_t v) {
    v = (v >> 1 & 0x5555555555555555) | (v & 0x5555555555555555) << 1;
    v = (v >> 2 & 0x3333333333333333) | (v & 0x3333333333333333) << 2;
    return (v >> 4 & 0x0f0f0f0f0f0f0f0f) | (v & 0x0f0f0f0f0f0f0f0f) << 4;
}

/* -infinity as bits. What is below zero lies from there to just above -0, as signed integers too. */
DS_INLINE int32_t infinity_of(uint32_t t) { return t == DS_F32 ? (int32_t)0xff800000 : t == DS_F16 ? -0x400 : -0x80; }

/* A bit for each element of `size` bytes in a vector, the first one lowest: set where a byte is not zero,
 * and where a float is not below zero. */
DS_INLINE uint64_t bits_of(const char *x, int size, int32_t infinity) {
#if DS_LANES == 16
    __m512i v = _mm512_loadu_si512(x);
    if (size == 1) return _mm512_test_epi8_mask(v, v);
    if (size == 4) return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NLT_UQ);
    __mmask32 small = _mm512_cmple_epi16_mask(v, _mm512_set1_epi16((int16_t)infinity));
    return (uint32_t)~_mm512_mask_cmpgt_epi16_mask(small, v, _mm512_set1_epi16(INT16_MIN));
#else
    ds_vec_i32 less;
    ds_vec_i16 halves;
    vec_u8 bytes;
    __builtin_memcpy(&less, x, WIDTH);
    __builtin_memcpy(&halves, x, WIDTH);
    __builtin_memcpy(&bytes, x, WIDTH);
    less = (less > INT32_MIN) & (less <= infinity);
    halves = (halves > INT16_MIN) & (halves <= (int16_t)infinity);
#if DS_LANES == 8
    if (size == 1) return (uint32_t)~_mm256_movemask_epi8((__m256i)(bytes == 0));
    if (size == 4) return ~(uint32_t)_mm256_movemask_ps((__m256)less) & 0xff;
    __m128i upper = _mm256_extracti128_si256((__m256i)halves, 1);
    return ~(uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm256_castsi256_si128((__m256i)halves), upper)) & 0xffff;
#elif defined(__SSE2__)
    if (size == 1) return ~(uint32_t)_mm_movemask_epi8((__m128i)(bytes == 0)) & 0xffff;
    if (size == 4) return ~(uint32_t)_mm_movemask_ps((__m128)less) & 0xf;
    return ~(uint32_t)_mm_movemask_epi8(_mm_packs_epi16((__m128i)halves, _mm_setzero_si128())) & 0xff;
#else
    uint64_t bits = 0;
    for (int i = 0; i < WIDTH / size; i++)
        bits |= (uint64_t)(size == 1 ? bytes[i] != 0 : size == 2 ? !halves[i] : !less[i]) << i;
    return bits;
#endif
#endif
}

DS_INLINE uint64_t packed(const char *x, int size, int32_t infinity) {
    enum { MOST = 64 * 4 / WIDTH };
    uint64_t word = 0;
    for (int k = 0; k < MOST * size / 4; k++) word |= bits_of(x + k * WIDTH, size, infinity) << k * (WIDTH / size);
    return turned(word);
}

DS_INLINE void pack(const char *x, uint8_t *bits, int64_t n, int size, int32_t infinity) {
    int64_t i = 0;
    for (; i + WORD <= n; i += WORD, x += 64 * size) {
        for (int line = 0; line < size; line++) __builtin_prefetch(x + AHEAD_BYTES + 64 * line, 0, 3);
        __builtin_prefetch(bits + i + AHEAD_BYTES / 8, 1, 3);
        uint64_t word = packed(x, size, infinity);
        __builtin_memcpy(bits + i, &word, sizeof word);
    }
    if (i == n) return;
    char rest[64 * 4] = {0};
    __builtin_memcpy(rest, x, (size_t)(8 * (n - i) * size));
    uint64_t word = packed(rest, size, infinity);
    __builtin_memcpy(bits + i, &word, (size_t)(n - i));
}

static void run_pack(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, FROM, 0);
    const char *from = ds_at(x->data, 8 * begin, x->dtype);
    uint8_t *bits = (uint8_t *)ds_arg_tensor(call, TO, 0)->data + begin;
    int32_t infinity = infinity_of(x->dtype);
    switch (ds_size(x->dtype)) {
    case 1: return pack(from, bits, end - begin, 1, 0);
    case 2: return pack(from, bits, end - begin, 2, infinity);
    default: return pack(from, bits, end - begin, 4, infinity);
    }
}

/* A vector of `one` where the bit of a lane of `size` bytes is set, the first one lowest, else of `zero`. */
DS_INLINE ds_vec_u32 lanes_of(uint64_t bits, ds_vec_u32 zero, ds_vec_u32 one, int size) {
#if DS_LANES == 16
    if (size == 1) return (ds_vec_u32)_mm512_mask_mov_epi8((__m512i)zero, bits, (__m512i)one);
    if (size == 2) return (ds_vec_u32)_mm512_mask_mov_epi16((__m512i)zero, (__mmask32)bits, (__m512i)one);
    return (ds_vec_u32)_mm512_mask_mov_epi32((__m512i)zero, (__mmask16)bits, (__m512i)one);
#else
    ds_vec_u32 is_one;
    if (size == 1) { /* ones alone */
        vec_u64 eights;
        for (int k = 0; k < WIDTH / 8; k++) {
            uint64_t spread = (bits >> 8 * k & 0xff) * 0x0101010101010101 & 0x8040201008040201;
            eights[k] = (spread + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
        }
        return (ds_vec_u32)eights;
    }
    if (size == 2) {
        ds_vec_i16 bit;
        for (int k = 0; k < WIDTH / 2; k++) bit[k] = (int16_t)(1u << k);
        is_one = (ds_vec_u32)((((ds_vec_i16){0} + (int16_t)bits) & bit) != 0);
    } else {
        ds_vec_u32 bit;
        for (int k = 0; k < DS_LANES; k++) bit[k] = 1u << k;
        is_one = (ds_vec_u32)((((ds_vec_u32){0} + (uint32_t)bits) & bit) != 0);
    }
    return (is_one & one) | (~is_one & zero);
#endif
}

/* What becomes of a bit. */
typedef struct {
    ds_vec_u32 zero, one;
} values;

DS_INLINE void unpack_word(uint64_t word, char *x, const values *v, int size, int streams) {
    enum { MOST = 64 * 4 / WIDTH };
    word = turned(word);
    for (int k = 0; k < MOST * size / 4; k++)
        ds_put(x + k * WIDTH, lanes_of(word >> k * (WIDTH / size), v->zero, v->one, size), streams);
}

DS_INLINE void unpack(const uint8_t *bits, char *x, int64_t n, const values *v, int size, int streams) {
    int64_t i = 0;
    uint64_t word = 0;
    for (; i + WORD <= n; i += WORD, x += 64 * size) {
        __builtin_prefetch(bits + i + AHEAD_BYTES, 0, 3);
        __builtin_memcpy(&word, bits + i, sizeof word);
        unpack_word(word, x, v, size, streams);
    }
    if (i == n) return;
    char rest[64 * 4];
    __builtin_memcpy(&word, bits + i, (size_t)(n - i));
    unpack_word(word, rest, v, size, 0);
    __builtin_memcpy(x, rest, (size_t)(8 * (n - i) * size));
}

static void run_unpack(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, TO, 0);
    const uint8_t *bits = (const uint8_t *)ds_arg_tensor(call, FROM, 0)->data + begin;
    char *to = ds_at(x->data, 8 * begin, x->dtype);
    int signs = call->attributes[0].i != 0, large = ds_streams(ds_elements(x), x->dtype);
    uint32_t half = x->dtype == DS_F16 ? 0x3c003c00 : 0x3f803f80, size = (uint32_t)ds_size(x->dtype);
    uint32_t one = size == 1 ? 0x01010101 : size == 2 ? half : DS_BITS_OF(1);
    uint32_t zero = signs ? one | (size == 2 ? 0x80008000 : 0x80000000) : 0;
    values v = {(ds_vec_u32){0} + zero, (ds_vec_u32){0} + one};
    int streams = large && ds_aligned(to);
    if (size == 1) unpack(bits, to, end - begin, &v, 1, streams);
    else if (size == 2) unpack(bits, to, end - begin, &v, 2, streams);
    else unpack(bits, to, end - begin, &v, 4, streams);
    if (large) ds_fence();
}

DS_KERNEL(ds_packbits, plan, run_pack);
DS_KERNEL(ds_unpackbits, plan, run_unpack);
