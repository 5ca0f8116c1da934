/* Numbers from narrow floats of groups, all or rows by index, on a CPU.
 *
 * Limit: memory, half of a byte to one and a half read and an element of T written; large results go
 * past the caches, else a store would first read what it overwrites.
 */
#include "ds_cpu_mixed.h"
#include "narrow.h"

/* fp_dequantize(codes, step, y); fp_selective_dequantize has index before y. y is [.., H, P], codes
 * [.., H, B]; an item is a group of the result, or a chunk of one. */
enum { CODES, STEP, Y };
enum { S_INDEX = 2, S_Y };
enum {
    BLOCK = 4096, /* codes in a buffer of the first level of the caches */
    PAIR = 2 * DS_LANES,
    FETCHED = 2048, /* bytes of a row by index that are asked for early; the processor foresees the rest */
    ITEMS_AHEAD = 2,
};

typedef struct {
    const ds_tensor *codes, *index, *y; /* no index: all rows */
    int64_t groups, length, chunks;     /* groups of the result */
    int64_t per, bytes;
} shape;

static shape shape_of(const ds_call *call, int selective) {
    shape s = {.codes = ds_arg_tensor(call, CODES, 0), .y = ds_arg_tensor(call, selective ? S_Y : Y, 0)};
    if (selective) s.index = ds_arg_tensor(call, S_INDEX, 0);
    int32_t last = s.y->ndim - 1;
    s.per = s.y->shape[last];
    s.bytes = s.codes->shape[last];
    s.length = s.y->shape[last - 1] * s.per;
    s.groups = s.y->shape[0] * (selective ? s.y->shape[1] : 1);
    s.chunks = chunks_of(s.length);
    return s;
}

static void plan_of(const ds_call *call, int selective, ds_plan *out) {
    shape s = shape_of(call, selective);
    out->phases = 1;
    out->phase[0].items = s.groups * s.chunks;
    out->phase[0].grain = ds_max(1, WORTH_A_THREAD / ds_max(1, s.length));
}

static void plan(const ds_call *call, ds_plan *out) { plan_of(call, 0, out); }
static void selective_plan(const ds_call *call, ds_plan *out) { plan_of(call, 1, out); }

/* The group of the codes that group `group` of the result comes from, or -1. */
DS_INLINE int64_t source_of(shape s, int64_t group) {
    if (!s.index) return group;
    int64_t of_row = s.y->shape[1], from = ds_index_at(s.index, group / of_row);
    return from < 0 || from >= s.codes->shape[0] ? -1 : from * of_row + group % of_row;
}

/* Asks for the codes of a group, which lie anywhere where an index says so. */
DS_INLINE void fetch_group(shape s, int64_t group) {
    int64_t source = source_of(s, group), bytes = s.length / s.per * s.bytes;
    const uint8_t *codes = (const uint8_t *)s.codes->data + ds_max(0, source) * bytes;
    for (int64_t i = 0; i < ds_min(bytes, FETCHED); i += 64) __builtin_prefetch(codes + i, 0, 3);
}

/* Codes from bytes, from the least bit on; `n` of them fill whole bytes. */
DS_INLINE void unpack_of(const uint8_t *from, int64_t n, uint8_t *codes, int bits) {
    int64_t bytes = n * bits / 8, at_a_time = 8 / code_size(bits);
    for (int64_t at = 0; at < bytes; at += at_a_time * bits / 8, codes += 8) {
        uint64_t some = 0;
        if (at + 8 <= bytes) __builtin_memcpy(&some, from + at, 8);
        else __builtin_memcpy(&some, from + at, (size_t)(bytes - at));
        some = spread(some, bits);
        __builtin_memcpy(codes, &some, sizeof some);
    }
}

/* The codes on their own, which those of 8 bits are. */
static const uint8_t *unpack(const uint8_t *from, int64_t n, int bits, uint8_t *block) {
    switch (bits) {
    case 4: unpack_of(from, n, block, 4); return block;
    case 6: unpack_of(from, n, block, 6); return block;
    case 12: unpack_of(from, n, block, 12); return block;
    default: return from;
    }
}

/* Codes from bytes, or where they are `wide` from 16 bits. */
DS_INLINE ds_vec_u16 codes_at(const uint8_t *codes, int64_t i, int wide) {
    if (wide) {
        ds_vec_u16 narrow;
        __builtin_memcpy(&narrow, codes + 2 * i, sizeof narrow);
        return narrow;
    }
#if DS_LANES == 16
    return (ds_vec_u16)_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(codes + i)));
#elif DS_LANES == 8
    return (ds_vec_u16)_mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(codes + i)));
#else
    ds_vec_u16 narrow;
    for (int lane = 0; lane < DS_LANES; lane++) narrow[lane] = codes[i + lane];
    return narrow;
#endif
}

DS_INLINE void expand(const uint8_t *codes, int64_t n, format f, float step, void *y, int64_t at, uint32_t t,
                      int streams) {
    float size = step < 0 ? -step : step;
    int wide = f.bits == 12, plain = size >= 0x1p-50f && size <= 0x1p50f; /* codes are not below 2^-66 */
    int64_t i = 0;
    for (; i + PAIR <= n; i += PAIR) {
        __asm__ volatile("" : "+r"(wide)); /* one loop for all formats */
        ds_vec2 v = {decode(codes_at(codes, i, wide), f) * step, decode(codes_at(codes, i + DS_LANES, wide), f) * step};
        ds_store2_in_order(y, at + i, v, t, plain, streams);
    }
    uint8_t rest[2 * PAIR] = {0};
    int64_t bytes = code_size(f.bits);
    __builtin_memcpy(rest, codes + i * bytes, (size_t)((n - i) * bytes));
    for (int64_t j = 0; i + j < n; j += DS_LANES)
        ds_store_first(n - i - j, y, at + i + j, decode(codes_at(rest, j, wide), f) * step, t);
}

DS_INLINE void run(const ds_call *call, shape s, int64_t begin, int64_t end, uint32_t t) {
    const uint8_t *codes = s.codes->data;
    const float *steps = ds_arg_tensor(call, STEP, 0)->data;
    format f = format_of(s.per, s.bytes, call->attributes[0].i);
    int large = ds_streams(ds_elements(s.y), t);
    _Alignas(64) uint8_t block[2 * BLOCK + 8];
    const uint8_t *some = block;
    __builtin_memset(block, 0, sizeof block); /* what rows that are not there read */
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / s.chunks, at = item % s.chunks * CHUNK, stop = ds_min(at + CHUNK, s.length);
        int64_t source = source_of(s, group);
        if (s.index && item + ITEMS_AHEAD < end) fetch_group(s, (item + ITEMS_AHEAD) / s.chunks);
        float step = source < 0 ? __builtin_nanf("") : steps[source];
        for (; at < stop; at += BLOCK) {
            int64_t n = ds_min(BLOCK, stop - at), to = group * s.length + at;
            if (source >= 0) some = unpack(codes + (source * s.length + at) / s.per * s.bytes, n, f.bits, block);
            expand(source < 0 ? block : some, n, f, step, s.y->data, to, t, large && ds_aligned(ds_at(s.y->data, to, t)));
        }
    }
    if (large) ds_fence();
}

/* One body for both: an index more or less for a group is nothing beside its codes. */
static __attribute__((noinline)) void run_any(const ds_call *call, int selective, int64_t begin, int64_t end) {
    shape s = shape_of(call, selective);
    DS_WITH_FLOAT(t, s.y->dtype, run(call, s, begin, end, t));
}

static void run_all(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    run_any(call, 0, begin, end);
}

static void run_selective(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    run_any(call, 1, begin, end);
}

DS_KERNEL(ds_fp_dequantize, plan, run_all);
DS_KERNEL(ds_fp_selective_dequantize, selective_plan, run_selective);
