/* Ranges of values, and whether all of them are finite. */
#ifndef DS_QUANTIZER_RANGE_H
#define DS_QUANTIZER_RANGE_H

#include "values.h"

typedef struct {
    float low, high;
    float poison; /* 0, or NaN where something was no finite number */
} range;

/* 16-bit floats as integers of the same order, and back; NaN are beyond the infinities of their sign. */
DS_INLINE ds_vec_i16 keys_of(ds_vec_i16 bits) { return bits ^ (bits >> 15 & 0x7fff); }

DS_INLINE float value_of_key(int16_t key, uint32_t dtype) {
    uint16_t bits = (uint16_t)(key ^ (key >> 15 & 0x7fff));
    return dtype == DS_BF16 ? ds_bf16_to_f32(bits) : ds_f16_to_f32(bits);
}

/* Fetches a share of half `which` of a group of `n` elements that is soon looked at: of the next one while
 * the range of this one is found, of the one behind it while this one is quantised. */
DS_INLINE void fetch_next(const void *x, int64_t n, int64_t i, int which, int64_t size) {
    __builtin_prefetch((const char *)x + ((1 + which) * n + (which * n + i) / 2) * size, 0, 3);
}

/* The range of elements of 16 bits. The last vector may be one that overlaps others. */
static __attribute__((unused)) range range_of_halves(const uint16_t *x, int64_t n, uint32_t dtype) {
    enum { LANES = 2 * DS_LANES };
    uint16_t few[LANES];
    if (n < LANES) {
        for (int64_t i = 0; i < LANES; i++) few[i] = x[i < n ? i : 0];
        x = few, n = LANES;
    }
    /* The greatest is that of which the complement is least. */
    ds_vec_i16 low[2] = {{0}, {0}}, high[2];
    low[0] = low[1] = high[0] = high[1] = low[0] + INT16_MAX;
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        fetch_next(x, n, i, 0, sizeof *x);
        fetch_next(x, n, i + LANES, 0, sizeof *x);
        for (int k = 0; k < 2; k++) {
            ds_vec_i16 v;
            __builtin_memcpy(&v, x + ds_min(i + k * LANES, n - LANES), sizeof v);
            v = keys_of(v);
            low[k] = ds_lesser_i16(low[k], v);
            high[k] = ds_lesser_i16(high[k], ~v);
        }
    }
    range r = {.low = value_of_key(ds_least_i16(ds_lesser_i16(low[0], low[1])), dtype)};
    r.high = value_of_key((int16_t)~ds_least_i16(ds_lesser_i16(high[0], high[1])), dtype);
    r.poison = 0 * r.low + 0 * r.high;
    return r;
}

/* Four sums of each kind: one would wait for itself. */
typedef struct {
    quad low, high, poison;
} ranges_of_four;

DS_INLINE ranges_of_four begin_ranges(void) {
    ds_vec most = ds_splat(__builtin_inff()), none = ds_splat(0);
    return (ranges_of_four){{most, most, most, most}, {-most, -most, -most, -most}, {none, none, none, none}};
}

DS_INLINE ranges_of_four add_range(ranges_of_four r, quad v) {
    ds_vec zero = ds_splat(0);
    return (ranges_of_four){
        {ds_vmin(r.low.a, v.a), ds_vmin(r.low.b, v.b), ds_vmin(r.low.c, v.c), ds_vmin(r.low.d, v.d)},
        {ds_vmax(r.high.a, v.a), ds_vmax(r.high.b, v.b), ds_vmax(r.high.c, v.c), ds_vmax(r.high.d, v.d)},
        {ds_vfma(v.a, zero, r.poison.a), ds_vfma(v.b, zero, r.poison.b), ds_vfma(v.c, zero, r.poison.c),
         ds_vfma(v.d, zero, r.poison.d)},
    };
}

static range end_ranges(ranges_of_four r) {
    ds_vec low = ds_vmin(ds_vmin(r.low.a, r.low.b), ds_vmin(r.low.c, r.low.d));
    ds_vec high = ds_vmax(ds_vmax(r.high.a, r.high.b), ds_vmax(r.high.c, r.high.d));
    ds_vec poison = r.poison.a + r.poison.b + r.poison.c + r.poison.d;
    float all = ds_unordered(poison, poison) ? __builtin_nanf("") : 0;
    return (range){-ds_greatest_lane(-low), ds_greatest_lane(high), all};
}

/* The first `n` values of a quad, and the first one again in place of the others. */
static void repeat_first(float *values, int64_t n) {
    for (; n < QUAD; n++) values[n] = values[0];
}

static __attribute__((unused)) range range_of_floats(const float *x, int64_t n) {
    _Alignas(64) float few[QUAD];
    ranges_of_four r = begin_ranges();
    for (int64_t i = 0; i < n; i += QUAD) {
        const float *from = x + i;
        fetch_next(x, n, i, 0, sizeof *x);
        fetch_next(x, n, i + QUAD / 2, 0, sizeof *x);
        if (i + QUAD > n) {
            from = __builtin_memcpy(few, from, (size_t)(n - i) * sizeof *x);
            repeat_first(few, n - i);
        }
        r = add_range(r, load_quad(from, DS_F32));
    }
    return end_ranges(r);
}

#endif
