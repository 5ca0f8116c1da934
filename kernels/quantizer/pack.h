/* Quantised values on their way out, and the errors that they leave behind. */
#ifndef DS_QUANTIZER_PACK_H
#define DS_QUANTIZER_PACK_H

#include "group.h"

/* Bytes to memory, past the caches where `streams`. */
static void put_bytes(int8_t *to, const int8_t *from, int64_t n, int streams) {
    int64_t i = 0;
    if (streams) {
        for (; i < n && !ds_aligned(to + i); i++) to[i] = from[i];
        for (; i + (int64_t)sizeof(ds_vec) <= n; i += sizeof(ds_vec)) {
            ds_vec_u32 bits;
            __builtin_memcpy(&bits, from + i, sizeof bits);
            ds_put(to + i, bits, 1);
        }
    }
    __builtin_memcpy(to + i, from + i, (size_t)(n - i));
}

/* Pairs of values into bytes, the first one in the lower half. */
static void pair_up(const int8_t *restrict one, int64_t bytes, int8_t *restrict two) {
    for (int64_t i = 0; i < bytes; i++) two[i] = (int8_t)((one[2 * i] & 0xf) | one[2 * i + 1] << 4);
}

/* Quantises a block. `per_byte` values lie in a byte; `to` is that of value 0. */
static void pack(const float *values, int64_t n, params p, float levels, int64_t per_byte, int8_t *to, int streams) {
    int8_t one[BLOCK + PAD], two[BLOCK / 2];
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec whole = scaled(ds_load(values, i, DS_F32), p, levels) + WHOLE;
        ds_vec_u8 bytes = ds_low_bytes((ds_vec_u32)whole);
        __builtin_memcpy(one + i, &bytes, sizeof bytes);
    }
    if (per_byte == 1) {
        put_bytes(to, one, n, streams);
    } else {
        pair_up(one, n / 2, two);
        put_bytes(to, two, n / 2, streams);
    }
}

DS_INLINE void add_error_of(const void *err, int64_t at, int64_t n, float *values, uint32_t t) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_store(values, i, ds_load(values, i, DS_F32) + ds_load_first(n - i, err, at + i, t), DS_F32);
    }
}

/* Adds the errors from `at` on to the values. */
static void add_error(const ds_tensor *err, int64_t at, int64_t n, float *values) {
    DS_WITH_FLOAT(t, err->dtype, add_error_of(err->data, at, n, values, t));
}

DS_INLINE void update_error_of(void *err, int64_t at, int64_t n, const float *values, params p, float levels,
                               float beta, uint32_t t) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load(values, i, DS_F32), q = scaled(v, p, levels) + WHOLE - WHOLE;
        ds_vec left = v - (q * p.step + p.offset), old = ds_load_first(n - i, err, at + i, t);
        ds_store_first(n - i, err, at + i, beta * old + (1 - beta) * left, t);
    }
}

/* err = beta * err + (1 - beta) * (value - what it comes back as) */
static void update_error(const ds_tensor *err, int64_t at, int64_t n, const float *values, params p, float levels,
                         float beta) {
    DS_WITH_FLOAT(t, err->dtype, update_error_of(err->data, at, n, values, p, levels, beta, t));
}

#endif
