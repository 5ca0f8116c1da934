/* Narrow floats of groups, on a CPU.
 *
 * Limit: memory, an element of T read and half of a byte to one and a half written; finding the
 * greatest and encoding are some twenty operations a vector. A group longer than a chunk is shared
 * among threads: the greatest of each chunk, then that of the group, then the codes.
 */
#include "ds_cpu_narrow.h"
#include "ds_cpu_random.h"
#include "narrow.h"

/* fp_quantize(x, codes) -> step */
enum { X, CODES, STEP };
enum { MANTISSA, STOCHASTIC };
enum { SEED, OFFSET };
enum { BLOCK = DS_RANDOM_TILE, AHEAD = 4096 };

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
DS_INLINE void pack_of(const uint16_t *codes, int64_t n, uint8_t *to, int bits) {
    int64_t bytes = n * bits / 8;
    for (int64_t i = 0; i < n; i += 4) {
        uint64_t four;
        __builtin_memcpy(&four, codes + i, sizeof four);
        four = gather(four, bits);
        int64_t at = i * bits / 8;
        if (at + 8 <= bytes) __builtin_memcpy(to + at, &four, 8);
        else __builtin_memcpy(to + at, &four, (size_t)ds_min(bits / 2, bytes - at));
    }
}

static void pack(const uint16_t *codes, int64_t n, int bits, uint8_t *to) {
    switch (bits) {
    case 4: pack_of(codes, n, to, 4); break;
    case 6: pack_of(codes, n, to, 6); break;
    case 8: for (int64_t i = 0; i < n; i++) to[i] = (uint8_t)codes[i]; break;
    case 12: pack_of(codes, n, to, 12); break;
    }
}

/* Bits of |x|, which are ordered like the numbers, and NaN is above them all. */
DS_INLINE uint32_t greatest_of(const void *x, int64_t at, int64_t n, uint32_t t) {
    ds_vec_i32 most = {0};
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec_i32 size = (ds_vec_i32)ds_load_first(n - i, x, at + i, t) & 0x7fffffff, more = size > most;
        most = (size & more) | (most & ~more);
    }
    uint32_t one = 0;
    for (int lane = 0; lane < DS_LANES; lane++) one = (uint32_t)most[lane] > one ? (uint32_t)most[lane] : one;
    return one;
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

/* Codes of [at, at + n) of a group, the first of whose values is element `first` of the tensor. */
DS_INLINE void encode_part(const ds_call *call, shape s, int64_t first, int64_t at, int64_t n, format f, float scale,
                           uint32_t t, int stochastic) {
    const void *x = ds_arg_tensor(call, X, 0)->data;
    uint8_t *codes = ds_arg_tensor(call, CODES, 0)->data;
    uint16_t block[BLOCK + DS_LANES];
    ds_random random;
    for (int64_t i = at; i < at + n; i += BLOCK) {
        int64_t here = ds_min(BLOCK, at + n - i), from = first + i;
        const uint32_t *words = NULL;
        if (stochastic) {
            uint64_t position = (uint64_t)call->scalars[OFFSET].i + (uint64_t)from;
            words = ds_random_words(&random, (uint64_t)call->scalars[SEED].i, position, here);
        }
        for (int64_t j = 0; j < here; j += DS_LANES) {
            ds_vec v = ds_load_first(here - j, x, from + j, t) * scale;
            ds_prefetch2(x, from + j + AHEAD, t, 2);
            ds_vec_u16 narrow = ds_low_halves(encode(v, f, words ? words + j : NULL));
            __builtin_memcpy(block + j, &narrow, sizeof narrow);
        }
        pack(block, here, f.bits, codes + from / s.per * s.bytes);
    }
}

DS_INLINE void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t t) {
    const void *x = ds_arg_tensor(call, X, 0)->data;
    float *step = ds_arg_tensor(call, STEP, 0)->data;
    shape s = shape_of(call);
    format f = format_of(s.per, s.bytes, call->attributes[MANTISSA].i);
    int stochastic = (int)call->attributes[STOCHASTIC].i;
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
            if (stochastic) encode_part(call, s, first, at, n, f, p.scale, t, 1);
            else encode_part(call, s, first, at, n, f, p.scale, t, 0);
        }
    }
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, phase, begin, end, t));
}

DS_KERNEL(ds_fp_quantize, plan, run_any);
