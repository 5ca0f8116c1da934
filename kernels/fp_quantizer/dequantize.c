/* Numbers from narrow floats of groups, all or rows by index, on a CPU.
 *
 * Limit: memory, half of a byte to one and a half read and an element of T written; large results go
 * past the caches, else a store would first read what it overwrites.
 */
#include "narrow.h"

/* fp_dequantize(codes, step, y); fp_selective_dequantize has index before y. y is [.., H, P], codes
 * [.., H, B]; an item is a group of the result, or a chunk of one. */
enum { CODES, STEP, Y };
enum { S_INDEX = 2, S_Y };
enum { BLOCK = 4096 /* codes in a buffer of the first level of the caches */ };

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
    int64_t of_row = s.y->shape[1], row = group / of_row;
    int64_t from = s.index->dtype == DS_I32 ? ((const int32_t *)s.index->data)[row]
                                            : ((const int64_t *)s.index->data)[row];
    return from < 0 || from >= s.codes->shape[0] ? -1 : from * of_row + group % of_row;
}

/* Codes from bytes, from the least bit on; `n` of them fill whole bytes. */
DS_INLINE void unpack_of(const uint8_t *from, int64_t n, uint16_t *codes, int bits) {
    int64_t bytes = n * bits / 8;
    for (int64_t i = 0; i < n; i += 4) {
        uint64_t four = 0;
        int64_t at = i * bits / 8;
        if (at + 8 <= bytes) __builtin_memcpy(&four, from + at, 8);
        else __builtin_memcpy(&four, from + at, (size_t)ds_min(bits / 2, bytes - at));
        four = spread(four, bits);
        __builtin_memcpy(codes + i, &four, sizeof four);
    }
}

static void unpack(const uint8_t *from, int64_t n, int bits, uint16_t *codes) {
    switch (bits) {
    case 4: unpack_of(from, n, codes, 4); break;
    case 6: unpack_of(from, n, codes, 6); break;
    case 8: for (int64_t i = 0; i < n; i++) codes[i] = from[i]; break;
    case 12: unpack_of(from, n, codes, 12); break;
    }
}

DS_INLINE void expand(const uint16_t *codes, int64_t n, format f, float step, void *y, int64_t at, uint32_t t,
                      int streams) {
    int64_t i = 0;
    for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES) {
        ds_vec v[2];
        ds_vec_u16 half[2];
        for (int part = 0; part < 2; part++) {
            ds_vec_u16 narrow;
            __builtin_memcpy(&narrow, codes + i + part * DS_LANES, sizeof narrow);
            v[part] = decode(__builtin_convertvector(narrow, ds_vec_u32), f) * step;
            if (t == DS_F32) ds_put(ds_at(y, at + i + part * DS_LANES, t), (ds_vec_u32)v[part], streams);
            else half[part] = ds_vec_to_half(v[part], t);
        }
        if (t != DS_F32) {
#if DS_LANES == 16 /* compilers take the way through memory, and the load waits for both stores */
            ds_vec_u32 both = (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)half[0]), (__m256i)half[1], 1);
#else
            ds_vec_u32 both;
            __builtin_memcpy(&both, half, sizeof both);
#endif
            ds_put(ds_at(y, at + i, t), both, streams);
        }
    }
    for (; i < n; i += DS_LANES) {
        ds_vec_u16 narrow;
        __builtin_memcpy(&narrow, codes + i, sizeof narrow);
        ds_vec v = decode(__builtin_convertvector(narrow, ds_vec_u32), f) * step;
        ds_store_first(n - i, y, at + i, v, t);
    }
}

DS_INLINE void run(const ds_call *call, shape s, int64_t begin, int64_t end, uint32_t t) {
    const uint8_t *codes = s.codes->data;
    const float *steps = ds_arg_tensor(call, STEP, 0)->data;
    format f = format_of(s.per, s.bytes, call->attributes[0].i);
    int large = ds_streams(ds_elements(s.y), t);
    uint16_t block[BLOCK + DS_LANES] = {0};
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / s.chunks, at = item % s.chunks * CHUNK, stop = ds_min(at + CHUNK, s.length);
        int64_t source = source_of(s, group);
        float step = source < 0 ? __builtin_nanf("") : steps[source];
        for (; at < stop; at += BLOCK) {
            int64_t n = ds_min(BLOCK, stop - at), to = group * s.length + at;
            if (source >= 0) unpack(codes + (source * s.length + at) / s.per * s.bytes, n, f.bits, block);
            expand(block, n, f, step, s.y->data, to, t, large && ds_aligned(ds_at(s.y->data, to, t)));
        }
    }
    if (large) ds_fence();
}

static void run_all(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    shape s = shape_of(call, 0);
    DS_WITH_FLOAT(t, s.y->dtype, run(call, s, begin, end, t));
}

static void run_selective(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    shape s = shape_of(call, 1);
    DS_WITH_FLOAT(t, s.y->dtype, run(call, s, begin, end, t));
}

DS_KERNEL(ds_fp_dequantize, plan, run_all);
DS_KERNEL(ds_fp_selective_dequantize, selective_plan, run_selective);
