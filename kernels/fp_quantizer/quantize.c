/* Narrow floats of groups, on a CPU.
 *
 * Limit: memory, an element of T read and half of a byte to one and a half written; finding the
 * greatest and encoding are some twenty operations a vector. A group longer than a chunk is shared
 * among threads: the greatest of each chunk, then that of the group, then the codes.
 */
#include "ds_cpu_copy.h"
#include "ds_cpu_narrow.h"
#include "ds_cpu_random.h"
#include "narrow.h"

/* fp_quantize(x, codes) -> step */
enum { X, CODES, STEP };
enum { MANTISSA, STOCHASTIC };
enum { SEED, OFFSET };
enum { BLOCK = DS_RANDOM_TILE, QUAD = 4 * DS_LANES, AHEAD = 2048 };

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

/* Codes to bytes, from the least bit on; `n` of them fill whole bytes. What a store of eight bytes
 * writes too much, the next one overwrites. */
DS_INLINE void pack_of(const uint8_t *codes, int64_t n, uint8_t *to, int bits) {
    int64_t bytes = n * bits / 8, at_a_time = 8 / code_size(bits);
    for (int64_t at = 0; at < bytes; at += at_a_time * bits / 8, codes += 8) {
        uint64_t some;
        __builtin_memcpy(&some, codes, sizeof some);
        some = gather(some, bits);
        if (at + 8 <= bytes) __builtin_memcpy(to + at, &some, 8);
        else __builtin_memcpy(to + at, &some, (size_t)ds_min(at_a_time * bits / 8, bytes - at));
    }
}

static void pack(const uint8_t *codes, int64_t n, int bits, uint8_t *to, int streams) {
    switch (bits) {
    case 4: pack_of(codes, n, to, 4); return;
    case 6: pack_of(codes, n, to, 6); return;
    case 12: pack_of(codes, n, to, 12); return;
    }
    ds_copy_bytes(to, codes, 0, n, streams);
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

DS_INLINE ds_vec_i32 size_of(int64_t n, const void *x, int64_t i, uint32_t t) {
    return (ds_vec_i32)ds_load_first(n, x, i, t) & 0x7fffffff;
}

/* Fetches a share of what is soon needed, at pair `i` of a group's `n` elements: half of it while the
 * greatest is found, half while codes are made. */
DS_INLINE void fetch_ahead(const void *x, int64_t at, int64_t n, int64_t i, uint32_t t, int which) {
    int64_t size = ds_size(t);
    __builtin_prefetch((const char *)x + (at + AHEAD) * size + (which * n + i) * size / 2, 0, 3);
}

/* Bits of |x|, which are ordered like the numbers, and NaN is above them all. */
DS_INLINE uint32_t greatest_of(const void *x, int64_t at, int64_t n, uint32_t t) {
    ds_vec_i32 most = {0}, other = {0};
    int64_t i = 0;
    for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES) {
        fetch_ahead(x, at, n, i, t, 0);
        most = greater(most, size_of(DS_LANES, x, at + i, t));
        other = greater(other, size_of(DS_LANES, x, at + i + DS_LANES, t));
    }
    for (; i < n; i += DS_LANES) most = greater(most, size_of(n - i, x, at + i, t));
    most = greater(most, other);
#if DS_LANES == 16
    return (uint32_t)_mm512_reduce_max_epi32((__m512i)most);
#else
    uint32_t one = 0;
    for (int lane = 0; lane < DS_LANES; lane++) one = (uint32_t)most[lane] > one ? (uint32_t)most[lane] : one;
    return one;
#endif
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

/* The low bytes of four vectors, or the low halves of the first two, none of which has other bits. */
DS_INLINE ds_vec_u32 narrowed(const ds_vec_u32 *v, int wide) {
#if DS_LANES == 16
    __m512i a = _mm512_packus_epi32((__m512i)v[0], (__m512i)v[1]);
    if (wide) return (ds_vec_u32)_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), a);
    __m512i b = _mm512_packus_epi32((__m512i)v[2], (__m512i)v[3]);
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return (ds_vec_u32)_mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(a, b));
#else
    ds_vec_u32 all;
    for (int k = 0; k < (wide ? 2 : 4); k++) {
        ds_vec_u16 halves = ds_low_halves(v[k]);
        ds_vec_u8 bytes = ds_low_bytes(v[k]);
        if (wide) __builtin_memcpy((char *)&all + 2 * k * DS_LANES, &halves, sizeof halves);
        else __builtin_memcpy((char *)&all + k * DS_LANES, &bytes, sizeof bytes);
    }
    return all;
#endif
}

/* `n` elements from `i` on as their codes, a quad or less at a time. */
DS_INLINE void encode_quad(const void *x, int64_t i, int64_t n, uint32_t dtype, format f, float scale, int no_nan,
                           const uint32_t *words, uint8_t *to) {
    ds_vec v[4] = {{0}};
    if (n >= QUAD) DS_WITH_FLOAT(t, dtype, for (int k = 0; k < 4; k++) v[k] = ds_load(x, i + k * DS_LANES, t));
    else DS_WITH_FLOAT(t, dtype, for (int k = 0; k * DS_LANES < n; k++) v[k] = ds_load_first(n - k * DS_LANES, x, i + k * DS_LANES, t));
    ds_vec_u32 code[4];
    for (int k = 0; k < 4; k++) code[k] = encode(v[k] * scale, f, words ? words + k * DS_LANES : NULL, no_nan);
    ds_vec_u32 some = narrowed(code, f.bits == 12);
    __builtin_memcpy(to, &some, sizeof some);
    if (f.bits != 12) return;
    some = narrowed(code + 2, 1);
    __builtin_memcpy(to + sizeof some, &some, sizeof some);
}

/* Codes of [at, at + n) of a group, the first of whose values is element `first` of the tensor. What
 * tells dtypes, formats and roundings apart is asked for each quad: one loop serves them all. */
static __attribute__((noinline)) void encode_part(const ds_call *call, shape s, int64_t first, int64_t at, int64_t n,
                                                  format f, float scale, int streams) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    uint8_t *codes = ds_arg_tensor(call, CODES, 0)->data;
    _Alignas(64) uint8_t block[2 * (BLOCK + QUAD)];
    int stochastic = (int)call->attributes[STOCHASTIC].i, no_nan = scale < __builtin_inff();
    uint32_t dtype = x->dtype;
    ds_random random;
    for (int64_t i = at; i < at + n; i += BLOCK) {
        int64_t here = ds_min(BLOCK, at + n - i), from = first + i;
        const uint32_t *words = NULL;
        if (stochastic) {
            uint64_t position = (uint64_t)call->scalars[OFFSET].i + (uint64_t)from;
            words = ds_random_words(&random, (uint64_t)call->scalars[SEED].i, position, here);
        }
        for (int64_t j = 0; j < here; j += QUAD) {
            __asm__ volatile("" : "+r"(dtype), "+r"(words), "+r"(no_nan));
            fetch_ahead(x->data, first + at, n, i - at + j, dtype, 1);
            fetch_ahead(x->data, first + at, n, i - at + j + QUAD / 2, dtype, 1);
            encode_quad(x->data, from + j, here - j, dtype, f, scale, no_nan, words ? words + j : NULL,
                        block + j * code_size(f.bits));
        }
        pack(block, here, f.bits, codes + from / s.per * s.bytes, streams);
    }
}

DS_INLINE void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t t) {
    const void *x = ds_arg_tensor(call, X, 0)->data;
    float *step = ds_arg_tensor(call, STEP, 0)->data;
    shape s = shape_of(call);
    format f = format_of(s.per, s.bytes, call->attributes[MANTISSA].i);
    int large = f.bits == 8 && ds_streams(ds_elements(ds_arg_tensor(call, CODES, 0)), DS_U8);
    uint32_t *parts = call->workspace, *whole = parts + s.groups * s.chunks;
    for (int64_t item = begin; item < end; item++) {
        int64_t group = phase == 1 ? item : item / s.chunks, at = item % s.chunks * CHUNK;
        int64_t first = group * s.length, n = ds_min(CHUNK, s.length - at);
        uint32_t greatest = 0;
        if (phase == 1) {
            for (int64_t i = 0; i < s.chunks; i++) greatest = ds_max(greatest, parts[group * s.chunks + i]);
            whole[group] = greatest;
        } else if (phase == 0) {
            greatest = greatest_of(x, first + at, n, t);
            if (s.chunks > 1) parts[item] = greatest;
        } else {
            greatest = whole[group];
        }
        params p = params_of(greatest, f.greatest);
        if (phase == 1 || s.chunks == 1) step[group] = p.step;
        if (phase == 2 || s.chunks == 1) {
            encode_part(call, s, first, at, n, f, p.scale, large);
        }
    }
    if (large) ds_fence();
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, phase, begin, end, t));
}

DS_KERNEL(ds_fp_quantize, plan, run_any);
