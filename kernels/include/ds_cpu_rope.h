/* Rotary position embedding of a head for CPU kernels, in both layouts. */
#ifndef DS_CPU_ROPE_H
#define DS_CPU_ROPE_H

#include "ds_cpu_mixed.h"
#include "ds_cpu_rows.h"

/* The elements of even places in `a`, of odd ones in `b`, from two vectors; `ds_zip` is the way back.
 * Pairs of bf16 are that already. */
DS_INLINE ds_vec2 ds_rope_apart(ds_vec2 v) {
#if DS_LANES == 16
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return (ds_vec2){(ds_vec)_mm512_permutex2var_ps((__m512)v.a, even, (__m512)v.b),
                     (ds_vec)_mm512_permutex2var_ps((__m512)v.a, odd, (__m512)v.b)};
#else
    ds_vec2 r = v;
    for (int i = 0; i < DS_LANES; i++) {
        int from = 2 * i % DS_LANES;
        r.a[i] = 2 * i < DS_LANES ? v.a[from] : v.b[from];
        r.b[i] = 2 * i < DS_LANES ? v.a[from + 1] : v.b[from + 1];
    }
    return r;
#endif
}

/* Of points (a, b) turned by the angles. */
DS_INLINE ds_vec2 ds_rope_turned(ds_vec a, ds_vec b, ds_vec cos, ds_vec sin) {
    return (ds_vec2){ds_vfma(a, cos, -(b * sin)), ds_vfma(b, cos, a * sin)};
}

/* The table's rows of a token; `sign` is -1 to turn back. */
typedef struct ds_angles {
    const float *cos, *sin; /* NULL for a token without angles */
    int64_t points;
    float sign;
} ds_angles;

/* Points (x[i], x[angles + i]). */
DS_INLINE void ds_rope_turn_halves(void *y, const void *x, const ds_angles *by, uint32_t t, int streams) {
    int64_t n = by->points, i = 0;
    for (; i + DS_PAIR <= n; i += DS_PAIR) {
        ds_vec2 r[2];
        ds_fetch_pair(x, i, t);
        ds_fetch_pair(x, n + i, t);
        for (int k = 0; k < 2; k++) {
            int64_t at = i + k * DS_LANES;
            r[k] = ds_rope_turned(ds_load(x, at, t), ds_load(x, n + at, t), ds_load(by->cos, at, DS_F32),
                          ds_load(by->sin, at, DS_F32) * by->sign);
        }
        ds_store2_in_order(y, i, (ds_vec2){r[0].a, r[1].a}, t, 1, streams);
        ds_store2_in_order(y, n + i, (ds_vec2){r[0].b, r[1].b}, t, 1, streams);
    }
    for (; i < n; i += DS_LANES) {
        int64_t some = n - i;
        ds_vec2 r = ds_rope_turned(ds_load_first(some, x, i, t), ds_load_first(some, x, n + i, t),
                           ds_load_first(some, by->cos, i, DS_F32), ds_load_first(some, by->sin, i, DS_F32) * by->sign);
        ds_store_first(some, y, i, r.a, t);
        ds_store_first(some, y, n + i, r.b, t);
    }
}

static float ds_rope_number(const void *x, int64_t i, uint32_t t) {
    if (t == DS_F32) return ((const float *)x)[i];
    return t == DS_BF16 ? ds_bf16_to_f32(((const uint16_t *)x)[i]) : ds_f16_to_f32(((const uint16_t *)x)[i]);
}

/* Points (x[2i], x[2i + 1]). */
DS_INLINE void ds_rope_turn_neighbours(void *y, const void *x, const ds_angles *by, uint32_t t, int streams) {
    int64_t n = by->points, i = 0;
    for (; i + DS_LANES <= n; i += DS_LANES) {
        ds_fetch_pair(x, 2 * i, t);
        ds_vec2 v = ds_load2(x, 2 * i, t);
        if (t != DS_BF16) v = ds_rope_apart(v);
        v = ds_rope_turned(v.a, v.b, ds_load(by->cos, i, DS_F32), ds_load(by->sin, i, DS_F32) * by->sign);
        ds_store2(y, 2 * i, t == DS_BF16 ? v : ds_zip(v.a, v.b), t, streams);
    }
    for (; i < n; i++) {
        ds_vec a = ds_splat(ds_rope_number(x, 2 * i, t)), b = ds_splat(ds_rope_number(x, 2 * i + 1, t));
        ds_vec2 v = ds_rope_turned(a, b, ds_splat(by->cos[i]), ds_splat(by->sin[i] * by->sign));
        ds_store_first(1, y, 2 * i, v.a, t);
        ds_store_first(1, y, 2 * i + 1, v.b, t);
    }
}

/* One head of a token; without angles what would be turned becomes NaN. */
DS_INLINE void ds_rope_turn_head(void *y, const void *x, const ds_angles *by, int64_t d, uint32_t t, int interleaved,
                                 int streams) {
    int64_t n = 2 * by->points;
    if (!by->cos) {
        for (int64_t i = 0; i < n; i += DS_LANES) ds_store_first(n - i, y, i, ds_splat(__builtin_nanf("")), t);
    } else if (interleaved) {
        ds_rope_turn_neighbours(y, x, by, t, streams);
    } else {
        ds_rope_turn_halves(y, x, by, t, streams && ds_aligned(ds_at(y, by->points, t)));
    }
    if (n < d && x != y) __builtin_memcpy(ds_at(y, n, t), ds_at(x, n, t), (size_t)((d - n) * ds_size(t)));
}

#endif
