/* A bit for an element, on a CPU.
 *
 * Limit: memory, eight elements of T on one side and a byte on the other. One product moves eight bits
 * from bytes of their own into one byte, and back; large results go past the caches.
 */
#include "ds_cpu_math.h"
#include "ds_cpu_narrow.h"

/* packbits(x) -> bits, unpackbits(bits) -> x; an item is a byte of bits. */
enum { FROM, TO };
enum { BLOCK = 512 /* bytes of bits at a time */, CHUNK = 4 * BLOCK };

/* Bits 63 - 9i: times a 1 at bit 8i, a 1 at bit 63 - i; no two products meet elsewhere. Bits 9i:
 * copies of a byte beside each other, in which bit 7 - i of one is bit 8i + 7. */
static const uint64_t SPREAD = 0x8040201008040201;

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *from = ds_arg_tensor(call, FROM, 0);
    out->phases = 1;
    out->phase[0].items = from->shape[0];
    out->phase[0].grain = CHUNK;
}

/* 1 where an element counts, a byte each. */
DS_INLINE void test_floats(const void *x, int64_t at, int64_t n, uint8_t *flags, uint32_t t) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec_i32 less = ds_load_first(n - i, x, at + i, t) < 0;
        ds_vec_u8 flag = ds_low_bytes((ds_vec_u32)(less + 1));
        __builtin_memcpy(flags + i, &flag, sizeof flag);
    }
}

static void test_bytes(const uint8_t *restrict x, int64_t n, uint8_t *restrict flags) {
    for (int64_t i = 0; i < n; i++) flags[i] = x[i] != 0;
}

static void run_pack(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, FROM, 0);
    uint8_t *bits = ds_arg_tensor(call, TO, 0)->data, flags[8 * BLOCK + DS_LANES];
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        if (ds_size(x->dtype) == 1) test_bytes((const uint8_t *)x->data + 8 * at, 8 * n, flags);
        else DS_WITH_FLOAT(t, x->dtype, test_floats(x->data, 8 * at, 8 * n, flags, t));
        for (int64_t i = 0; i < n; i++) {
            uint64_t eight;
            __builtin_memcpy(&eight, flags + 8 * i, 8);
            bits[at + i] = (uint8_t)(eight * SPREAD >> 56);
        }
    }
}

/* 1 where the flag is 1, else `zero`. */
DS_INLINE void numbers(const uint8_t *flags, int64_t n, void *x, int64_t at, uint32_t t, int streams, float zero) {
    for (int64_t i = 0; i < n; i += 2 * DS_LANES) {
        ds_vec v[2];
        for (int part = 0; part < 2; part++) {
            v[part] = ds_bytes_at(flags + i + part * DS_LANES, 0) * (1 - zero) + zero;
            if (t == DS_F32 && i + 2 * DS_LANES <= n) {
                ds_put(ds_at(x, at + i + part * DS_LANES, t), (ds_vec_u32)v[part], streams);
            }
        }
        if (i + 2 * DS_LANES > n) {
            ds_store_first(n - i, x, at + i, v[0], t);
            if (n - i > DS_LANES) ds_store_first(n - i - DS_LANES, x, at + i + DS_LANES, v[1], t);
        } else if (t != DS_F32) {
            ds_vec_u16 half[2] = {ds_vec_to_half(v[0], t), ds_vec_to_half(v[1], t)};
            ds_vec_u32 both;
            __builtin_memcpy(&both, half, sizeof both);
            ds_put(ds_at(x, at + i, t), both, streams);
        }
    }
}

static void run_unpack(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, TO, 0);
    const uint8_t *bits = ds_arg_tensor(call, FROM, 0)->data;
    uint8_t flags[8 * BLOCK + 2 * DS_LANES] __attribute__((aligned(64)));
    float zero = call->attributes[0].i ? -1 : 0;
    int large = ds_streams(ds_elements(x), x->dtype);
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        for (int64_t i = 0; i < n; i++) {
            uint64_t eight = (bits[at + i] * SPREAD & 0x8080808080808080) >> 7;
            __builtin_memcpy(flags + 8 * i, &eight, 8);
        }
        void *to = ds_at(x->data, 8 * at, x->dtype);
        int streams = large && ds_aligned(to);
        if (ds_size(x->dtype) > 1) {
            DS_WITH_FLOAT(t, x->dtype, numbers(flags, 8 * n, x->data, 8 * at, t, streams, zero));
            continue;
        }
        int64_t i = 0;
        for (; i + (int64_t)sizeof(ds_vec) <= 8 * n; i += sizeof(ds_vec)) {
            ds_vec_u32 some;
            __builtin_memcpy(&some, flags + i, sizeof some);
            ds_put((char *)to + i, some, streams);
        }
        __builtin_memcpy((char *)to + i, flags + i, (size_t)(8 * n - i));
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_packbits, plan, run_pack);
DS_KERNEL(ds_unpackbits, plan, run_unpack);
