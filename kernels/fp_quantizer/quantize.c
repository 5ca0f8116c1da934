/* Narrow floats of groups, on a CPU.
 *
 * Limit: memory, an element of T read and half of a byte to one and a half written; finding the
 * greatest and encoding are a dozen operations a vector. A group longer than a chunk is shared
 * among threads: the greatest of each chunk, then that of the group, then the codes.
 */
#include "ds_cpu_lanes.h"
#include "ds_cpu_narrow.h"
#include "ds_cpu_random.h"
#include "narrow.h"

/* fp_quantize(x, codes) -> step */
enum { X, CODES, STEP };
enum { MANTISSA, STOCHASTIC };
enum { SEED, OFFSET };
enum { QUAD = 4 * DS_LANES, HALVES = 2 * DS_LANES, AHEAD = 2048 };

typedef struct {
    int64_t groups, length, chunks;
    int64_t per, bytes; /* codes in bytes */
} shape;

static shape shape_of(const ds_call *call) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    shape s = {.groups = x->shape[0], .per = x->shape[2], .bytes = ds_arg_tensor(call, CODES, 0)->shape[2]};
    s.length = x->shape[1] * s.per;
    s.chunks = chunks_of(s.length);
    return s;
}

static void plan(const ds_call *call, ds_plan *out) {
    shape s = shape_of(call);
    out->phases = 1;
    out->phase[0].items = s.groups * s.chunks;
    out->phase[0].grain = ds_max(1, WORTH_A_THREAD / ds_max(1, s.length));
    if (s.chunks == 1) return;
    out->phases = 3;
    out->phase[1].items = s.groups;
    out->phase[1].grain = 64;
    out->phase[2] = out->phase[0];
    out->workspace_bytes = s.groups * (s.chunks + 1) * (int64_t)sizeof(uint32_t);
}

/* Codes to bytes, from the least bit on; `n` of them fill whole bytes. There is room behind `to`: what a
 * store of eight bytes writes too much, the next one overwrites. */
DS_INLINE void pack_words(const uint8_t *codes, int64_t n, uint8_t *to, int bits) {
    int64_t bytes = n * bits / 8, at_a_time = 8 / code_size(bits) * bits / 8;
    for (int64_t at = 0; at < bytes; at += at_a_time, codes += 8) {
        uint64_t some;
        __builtin_memcpy(&some, codes, sizeof some);
        some = gather(some, bits);
        __builtin_memcpy(to + at, &some, 8);
    }
}

#define THREE_OF_FOUR _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1)

/* A quad of codes of 6 bits, each in a byte of its own, to bytes; there is room behind. */
DS_INLINE void pack_six(ds_vec_u32 codes, uint8_t *to) {
#if DS_LANES == 16
    const __m512i first = _mm512_set1_epi16(64 << 8 | 1), then = _mm512_set1_epi32(4096 << 16 | 1);
    const __m512i three_of_four = _mm512_broadcast_i32x4(THREE_OF_FOUR);
    const __m512i together = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    __m512i v = _mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)codes, first), then);
    v = _mm512_permutexvar_epi32(together, _mm512_shuffle_epi8(v, three_of_four));
    _mm512_mask_storeu_epi32(to, (1 << 12) - 1, v);
#elif DS_LANES == 8
    const __m256i first = _mm256_set1_epi16(64 << 8 | 1), then = _mm256_set1_epi32(4096 << 16 | 1);
    const __m256i three_of_four = _mm256_broadcastsi128_si256(THREE_OF_FOUR);
    __m256i v = _mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)codes, first), then);
    v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, three_of_four), _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(v));
    _mm_storel_epi64((__m128i *)(to + 16), _mm256_extracti128_si256(v, 1));
#else
    uint8_t some[QUAD];
    __builtin_memcpy(some, &codes, sizeof some);
    pack_words(some, QUAD, to, 6);
#endif
}

DS_INLINE ds_vec_i32 greater(ds_vec_i32 a, ds_vec_i32 b) {
#if DS_LANES == 16
    return (ds_vec_i32)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif DS_LANES == 8
    return (ds_vec_i32)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    ds_vec_i32 more = a > b;
    return (a & more) | (b & ~more);
#endif
}

/* Fetches a share of half `which` of what is looked at soon, at element `i` of `n`. */
DS_INLINE void fetch_ahead(const void *x, int64_t n, int64_t i, int64_t size, int which) {
    __builtin_prefetch((const char *)x + (AHEAD + (which * n + i) / 2) * size, 0, 3);
}

/* Bits of |x| as f32, which are ordered like the numbers, and NaN is above them all. The last vectors may
 * be some that overlap others. */
static uint32_t greatest_float(const uint32_t *x, int64_t n) {
    ds_vec_i32 most[4] = {{0}, {0}, {0}, {0}};
    for (int64_t i = 0; i < n; i += QUAD) {
        fetch_ahead(x, n, i, sizeof *x, 0);
        fetch_ahead(x, n, i + QUAD / 2, sizeof *x, 0);
        for (int k = 0; k < 4; k++) {
            ds_vec_i32 v;
            __builtin_memcpy(&v, x + ds_min(i + k * DS_LANES, n - DS_LANES), sizeof v);
            most[k] = greater(most[k], v & 0x7fffffff);
        }
    }
    most[0] = greater(greater(most[0], most[1]), greater(most[2], most[3]));
#if DS_LANES == 16
    return (uint32_t)_mm512_reduce_max_epi32((__m512i)most[0]);
#else
    uint32_t one = 0;
    for (int lane = 0; lane < DS_LANES; lane++) one = (uint32_t)most[0][lane] > one ? (uint32_t)most[0][lane] : one;
    return one;
#endif
}

static uint32_t greatest_half(const uint16_t *x, int64_t n, uint32_t dtype) {
    ds_vec_i16 least[2] = {{0}, {0}}; /* of the complement: the greatest is that of which it is least */
    for (int64_t i = 0; i < n; i += QUAD) {
        fetch_ahead(x, n, i, sizeof *x, 0);
        for (int k = 0; k < 2; k++) {
            ds_vec_i16 v;
            __builtin_memcpy(&v, x + ds_min(i + k * HALVES, n - HALVES), sizeof v);
            least[k] = ds_lesser_i16(least[k], ~(v & INT16_MAX));
        }
    }
    uint16_t most = (uint16_t)~ds_least_i16(ds_lesser_i16(least[0], least[1]));
    return DS_BITS_OF(dtype == DS_BF16 ? ds_bf16_to_f32(most) : ds_f16_to_f32(most));
}

static uint32_t greatest_of(const void *x, int64_t n, uint32_t dtype) {
    uint32_t few[HALVES] = {0};
    if (n < HALVES) x = __builtin_memcpy(few, x, (size_t)(n * ds_size(dtype))), n = HALVES;
    return dtype == DS_F32 ? greatest_float(x, n) : greatest_half(x, n, dtype);
}

typedef struct {
    float scale, step;
} params;

static params params_of(uint32_t greatest, float range) {
    float r = DS_FLOAT_OF(greatest);
    if (greatest == 0) return (params){1, 1};
    if (greatest >= 0x7f800000) r = __builtin_nanf("");
    return (params){range / r, r / range};
}

/* Elements on their way to codes; compilers keep in memory what a loop goes over. */
typedef struct {
    ds_vec_u32 a, b, c, d;
} quad;

DS_INLINE quad load_quad(const void *x, float scale, uint32_t t) {
    return (quad){(ds_vec_u32)(ds_load(x, 0, t) * scale), (ds_vec_u32)(ds_load(x, DS_LANES, t) * scale),
                  (ds_vec_u32)(ds_load(x, 2 * DS_LANES, t) * scale), (ds_vec_u32)(ds_load(x, 3 * DS_LANES, t) * scale)};
}

/* The low halves of two vectors, and the low bytes of four, none of which has other bits. */
DS_INLINE ds_vec_u32 low_halves(ds_vec_u32 a, ds_vec_u32 b) {
#if DS_LANES == 16
    __m512i all = _mm512_packus_epi32((__m512i)a, (__m512i)b);
    return (ds_vec_u32)_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), all);
#else
    ds_vec_u16 halves[2] = {ds_low_halves(a), ds_low_halves(b)};
    ds_vec_u32 all;
    __builtin_memcpy(&all, halves, sizeof all);
    return all;
#endif
}

DS_INLINE ds_vec_u32 low_bytes(quad v) {
#if DS_LANES == 16
    __m512i low = _mm512_packus_epi32((__m512i)v.a, (__m512i)v.b);
    __m512i high = _mm512_packus_epi32((__m512i)v.c, (__m512i)v.d);
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (ds_vec_u32)_mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(low, high));
#else
    ds_vec_u8 bytes[4] = {ds_low_bytes(v.a), ds_low_bytes(v.b), ds_low_bytes(v.c), ds_low_bytes(v.d)};
    ds_vec_u32 all;
    __builtin_memcpy(&all, bytes, sizeof all);
    return all;
#endif
}

static __attribute__((noinline)) void encode_any(ds_vec_u32 v[4], const format *f, const uint32_t *words) {
    for (int k = 0; k < 4; k++) v[k] = any_codes((ds_vec)v[k], *f, words ? words + k * DS_LANES : NULL);
}

/* The bytes of a quad of elements; there is room behind. */
DS_INLINE void encode_quad(const void *x, uint32_t dtype, const format *f, int bits, nearest by, float scale, int tame,
                           const uint32_t *words, uint8_t *to, int streams) {
    quad v = {{0}};
    DS_WITH_FLOAT(t, dtype, v = load_quad(x, scale, t));
    if (tame) {
        v = (quad){nearest_codes((ds_vec)v.a, by), nearest_codes((ds_vec)v.b, by),
                   nearest_codes((ds_vec)v.c, by), nearest_codes((ds_vec)v.d, by)};
    } else {
        ds_vec_u32 some[4] = {v.a, v.b, v.c, v.d};
        encode_any(some, f, words);
        v = (quad){some[0], some[1], some[2], some[3]};
    }
    if (bits == 12) {
        ds_vec_u32 wide[2] = {low_halves(v.a, v.b), low_halves(v.c, v.d)};
        pack_words((const uint8_t *)wide, QUAD, to, 12);
        return;
    }
    ds_vec_u32 bytes = low_bytes(v);
    if (bits == 8) ds_put(to, bytes, streams);
    else if (bits == 6) pack_six(bytes, to);
    else pack_words((const uint8_t *)&bytes, QUAD, to, 4);
}

/* Codes of `n` elements, of which the first is number `first` of the tensor. What tells dtypes, formats and
 * roundings apart is asked for each quad: one loop serves them all. */
static __attribute__((noinline)) void encode(const ds_call *call, int64_t first, int64_t n, const format *f, float scale,
                                             uint8_t *to, int streams) {
    const ds_tensor *tensor = ds_arg_tensor(call, X, 0);
    const uint32_t dtype = tensor->dtype;
    const int bits = f->bits;
    const nearest by = nearest_of(*f);
    const int64_t size = ds_size(dtype), bytes = QUAD * bits / 8;
    const char *x = ds_at(tensor->data, first, dtype);
    _Alignas(64) char few[4 * QUAD];
    _Alignas(64) uint8_t last[2 * QUAD];
    const uint32_t *words = NULL;
    int stochastic = (int)call->attributes[STOCHASTIC].i, tame = !stochastic && scale < __builtin_inff();
    /* Elements whose bytes a store of eight bytes may overwrite; they have to be this thread's. */
    const int64_t behind = bits == 8 || (bits == 6 && DS_LANES > 4) ? 0 : 16;
    streams = streams && ds_aligned(to);
    ds_random random;
    for (int64_t i = 0; i < n; i += QUAD, to += bytes) {
        const char *from = x + i * size;
        if (stochastic && i % DS_RANDOM_TILE == 0) {
            uint64_t position = (uint64_t)call->scalars[OFFSET].i + (uint64_t)(first + i);
            words = ds_random_words(&random, (uint64_t)call->scalars[SEED].i, position, ds_min(DS_RANDOM_TILE, n - i));
        }
        fetch_ahead(x, n, i, size, 1);
        if (size == 4) fetch_ahead(x, n, i + QUAD / 2, size, 1);
        int rest = i + QUAD + behind > n;
        if (i + QUAD > n) from = __builtin_memcpy(few, from, (size_t)((n - i) * size));
        encode_quad(from, dtype, f, bits, by, scale, tame, words ? words + i % DS_RANDOM_TILE : NULL, rest ? last : to,
                    streams && !rest);
        if (rest) __builtin_memcpy(to, last, (size_t)(ds_min(QUAD, n - i) * bits / 8));
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *codes = ds_arg_tensor(call, CODES, 0);
    float *step = ds_arg_tensor(call, STEP, 0)->data;
    shape s = shape_of(call);
    format f = format_of(s.per, s.bytes, call->attributes[MANTISSA].i);
    int large = f.bits == 8 && ds_streams(ds_elements(codes), DS_U8);
    uint32_t *parts = call->workspace, *whole = parts + s.groups * s.chunks, next = 0;
    for (int64_t item = begin; item < end; item++) {
        int64_t group = phase == 1 ? item : item / s.chunks, at = item % s.chunks * CHUNK;
        int64_t first = group * s.length, n = ds_min(CHUNK, s.length - at);
        uint32_t greatest = 0;
        if (phase == 1) {
            for (int64_t i = 0; i < s.chunks; i++) greatest = ds_max(greatest, parts[group * s.chunks + i]);
            whole[group] = greatest;
        } else if (phase == 2) {
            greatest = whole[group];
        } else if (s.chunks > 1) {
            parts[item] = greatest_of(ds_at(x->data, first + at, x->dtype), n, x->dtype);
            continue;
        } else {
            /* That of the next group is found before this one's codes are made, so that they need not wait
             * for divisions. */
            greatest = item == begin ? greatest_of(ds_at(x->data, first, x->dtype), n, x->dtype) : next;
            if (item + 1 < end) next = greatest_of(ds_at(x->data, first + n, x->dtype), n, x->dtype);
        }
        params p = params_of(greatest, f.greatest);
        if (phase == 1 || s.chunks == 1) step[group] = p.step;
        if (phase == 1) continue;
        encode(call, first + at, n, &f, p.scale, (uint8_t *)codes->data + (first + at) / s.per * s.bytes, large);
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_fp_quantize, plan, run);
