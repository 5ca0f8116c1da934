/* Numbers from narrow floats of groups, all or rows by index, on a CPU.
 *
 * Limit: memory, half of a byte to one and a half read and an element of T written; large results go
 * past the caches, else a store would first read what it overwrites.
 */
#include "unpack.h"

/* fp_dequantize(codes, step, y); fp_selective_dequantize has index before y. y is [.., H, P], codes
 * [.., H, B]; an item is a group of the result, or a chunk of one. */
enum { CODES, STEP, Y };
enum { S_INDEX = 2, S_Y };
enum {
    BLOCK = 4096,   /* codes of rows that are not there */
    AHEAD = 2048,   /* bytes from what is read to what is fetched */
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

/* `n` numbers of codes that begin with a byte; what lies `ahead` of them is fetched. */
DS_INLINE void expand(const uint8_t *codes, int64_t n, int64_t ahead, const places *p, format f, factors by, void *y,
                      uint32_t t, int streams) {
    int64_t i = 0, bytes = n * f.bits / 8, of_pair = PAIR * f.bits / 8;
    for (; bytes >= of_pair + SLACK; i += PAIR, bytes -= of_pair, codes += of_pair) {
        __builtin_prefetch(codes + ahead, 0, 3);
        ds_store2_in_order(y, i, numbers_of(codes, p, f, by), t, by.plain, streams);
    }
    if (i == n) return;
    uint8_t rest[2 * PAIR + 2 * SLACK + 16] = {0};
    __builtin_memcpy(rest, codes, (size_t)bytes);
    for (codes = rest; i < n; i += PAIR, codes += of_pair) {
        ds_vec2 v = numbers_of(codes, p, f, by);
        ds_store_first(n - i, y, i, v.a, t);
        if (n - i > DS_LANES) ds_store_first(n - i - DS_LANES, y, i + DS_LANES, v.b, t);
    }
}

DS_INLINE void run(const ds_call *call, shape s, int64_t begin, int64_t end, uint32_t t) {
    const uint8_t *codes = s.codes->data;
    const float *steps = ds_arg_tensor(call, STEP, 0)->data;
    format f = format_of(s.per, s.bytes, call->attributes[0].i);
    int large = ds_streams(ds_elements(s.y), t);
    const places p = places_of(f.bits);
    static const uint8_t none[2 * BLOCK] = {0}; /* what rows that are not there read */
    for (int64_t item = begin; item < end; item++) {
        int64_t group = item / s.chunks, at = item % s.chunks * CHUNK, stop = ds_min(at + CHUNK, s.length);
        int64_t source = source_of(s, group);
        if (s.index && item + ITEMS_AHEAD < end) fetch_group(s, (item + ITEMS_AHEAD) / s.chunks);
        factors by = factors_of(f, source < 0 ? __builtin_nanf("") : steps[source]);
        for (; at < stop; at += BLOCK) {
            int64_t n = ds_min(BLOCK, stop - at);
            void *y = ds_at(s.y->data, group * s.length + at, t);
            const uint8_t *from = source < 0 ? none : codes + (source * s.length + at) / s.per * s.bytes;
            expand(from, n, s.index ? 0 : AHEAD, &p, f, by, y, t, large && ds_aligned(y));
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
