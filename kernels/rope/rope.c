/* Rotary position embedding in both layouts, on a CPU.
 *
 * Limit: memory. An element is read and written once; the rows of the tables serve every head of a
 * token and stay in a cache. Six operations for two elements are free.
 */
#include "ds_cpu_mixed.h"
#include "ds_cpu_rows.h"

/* rope(x, cos, sin, positions, offset, inverse, interleaved) -> y; an item is a token. */
enum { X, COS, SIN, POSITIONS, Y };
enum { OFFSET, INVERSE };
enum { INTERLEAVED };

static void plan(const ds_call *call, ds_plan *out) {
    const int64_t *shape = ds_arg_tensor(call, X, 0)->shape;
    out->phases = 1;
    out->phase[0].items = shape[0] * shape[1];
    out->phase[0].grain = ds_max(1, DS_CHUNK_ELEMENTS / ds_max(1, shape[2] * shape[3]));
}

/* The elements of even places in `a`, of odd ones in `b`, from two vectors; and back. Pairs of bf16
 * are that already. */
DS_INLINE ds_vec2 apart(ds_vec2 v) {
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

DS_INLINE ds_vec2 in_turns(ds_vec2 v) {
#if DS_LANES == 16
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    return (ds_vec2){(ds_vec)_mm512_permutex2var_ps((__m512)v.a, low, (__m512)v.b),
                     (ds_vec)_mm512_permutex2var_ps((__m512)v.a, high, (__m512)v.b)};
#else
    ds_vec2 r = v;
    for (int i = 0; i < DS_LANES; i++) {
        int from = i / 2;
        r.a[i] = i % 2 ? v.b[from] : v.a[from];
        r.b[i] = i % 2 ? v.b[DS_LANES / 2 + from] : v.a[DS_LANES / 2 + from];
    }
    return r;
#endif
}

/* Of points (a, b) turned by the angles. */
DS_INLINE ds_vec2 turned(ds_vec a, ds_vec b, ds_vec cos, ds_vec sin) {
    return (ds_vec2){ds_vfma(a, cos, -(b * sin)), ds_vfma(b, cos, a * sin)};
}

/* The table's rows of a token; `sign` is -1 to turn back. */
typedef struct {
    const float *cos, *sin;
    int64_t angles;
    float sign;
} angles;

/* Points (x[i], x[angles + i]). */
DS_INLINE void turn_halves(void *y, const void *x, const angles *by, uint32_t t, int streams) {
    int64_t n = by->angles, i = 0;
    for (; i + DS_PAIR <= n; i += DS_PAIR) {
        ds_vec2 r[2];
        ds_fetch_pair(x, i, t);
        ds_fetch_pair(x, n + i, t);
        for (int k = 0; k < 2; k++) {
            int64_t at = i + k * DS_LANES;
            r[k] = turned(ds_load(x, at, t), ds_load(x, n + at, t), ds_load(by->cos, at, DS_F32),
                          ds_load(by->sin, at, DS_F32) * by->sign);
        }
        ds_store2_in_order(y, i, (ds_vec2){r[0].a, r[1].a}, t, 1, streams);
        ds_store2_in_order(y, n + i, (ds_vec2){r[0].b, r[1].b}, t, 1, streams);
    }
    for (; i < n; i += DS_LANES) {
        int64_t some = n - i;
        ds_vec2 r = turned(ds_load_first(some, x, i, t), ds_load_first(some, x, n + i, t),
                           ds_load_first(some, by->cos, i, DS_F32), ds_load_first(some, by->sin, i, DS_F32) * by->sign);
        ds_store_first(some, y, i, r.a, t);
        ds_store_first(some, y, n + i, r.b, t);
    }
}

static float scalar_at(const void *x, int64_t i, uint32_t t) {
    if (t == DS_F32) return ((const float *)x)[i];
    return t == DS_BF16 ? ds_bf16_to_f32(((const uint16_t *)x)[i]) : ds_f16_to_f32(((const uint16_t *)x)[i]);
}

/* Points (x[2i], x[2i + 1]). */
DS_INLINE void turn_neighbours(void *y, const void *x, const angles *by, uint32_t t, int streams) {
    int64_t n = by->angles, i = 0;
    for (; i + DS_LANES <= n; i += DS_LANES) {
        ds_fetch_pair(x, 2 * i, t);
        ds_vec2 v = ds_load2(x, 2 * i, t);
        if (t != DS_BF16) v = apart(v);
        v = turned(v.a, v.b, ds_load(by->cos, i, DS_F32), ds_load(by->sin, i, DS_F32) * by->sign);
        ds_store2(y, 2 * i, t == DS_BF16 ? v : in_turns(v), t, streams);
    }
    for (; i < n; i++) {
        ds_vec a = ds_splat(scalar_at(x, 2 * i, t)), b = ds_splat(scalar_at(x, 2 * i + 1, t));
        ds_vec2 v = turned(a, b, ds_splat(by->cos[i]), ds_splat(by->sin[i] * by->sign));
        ds_store_first(1, y, 2 * i, v.a, t);
        ds_store_first(1, y, 2 * i + 1, v.b, t);
    }
}

/* One head of a token; without angles what would be turned becomes NaN. */
DS_INLINE void turn_head(void *y, const void *x, const angles *by, int64_t d, uint32_t t, int interleaved, int streams) {
    int64_t n = 2 * by->angles;
    if (!by->cos) {
        for (int64_t i = 0; i < n; i += DS_LANES) ds_store_first(n - i, y, i, ds_splat(__builtin_nanf("")), t);
    } else if (interleaved) {
        turn_neighbours(y, x, by, t, streams);
    } else {
        turn_halves(y, x, by, t, streams && ds_aligned(ds_at(y, by->angles, t)));
    }
    if (n < d && x != y) __builtin_memcpy(ds_at(y, n, t), ds_at(x, n, t), (size_t)((d - n) * ds_size(t)));
}

/* Where the token `index` of sequence `batch` stands. */
static int64_t position_of(const ds_call *call, int64_t batch, int64_t index) {
    int64_t offset = call->scalars[OFFSET].i;
    if (!call->args[POSITIONS].count) return index + offset;
    const ds_tensor *positions = ds_arg_tensor(call, POSITIONS, 0);
    return offset + ds_index_at(positions, batch * positions->strides[0] + index * positions->strides[1]);
}

/* Elements to a head, which for so short a row is not worth a division. */
DS_INLINE int64_t offset_of(const ds_tensor *x, int64_t batch, int64_t index, int64_t head) {
    return batch * x->strides[0] + index * x->strides[1] + head * x->strides[2];
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    const ds_tensor *cos = ds_arg_tensor(call, COS, 0), *sin = ds_arg_tensor(call, SIN, 0);
    int64_t tokens = x->shape[1], heads = x->shape[2], d = x->shape[3], width = cos->shape[1];
    int interleaved = call->attributes[INTERLEAVED].i != 0;
    int large = ds_streams(ds_elements(y), t) && x->data != y->data;
    angles by = {.angles = ds_min(width, d / 2), .sign = call->scalars[INVERSE].i ? -1 : 1};
    for (int64_t token = begin; token < end; token++) {
        int64_t batch = token / tokens, index = token % tokens, position = position_of(call, batch, index);
        int is_told = position >= 0 && position < cos->shape[0];
        by.cos = is_told ? (const float *)cos->data + position * width : 0;
        by.sin = is_told ? (const float *)sin->data + position * width : 0;
        for (int64_t head = 0; head < heads; head++) {
            const void *from = ds_at(x->data, offset_of(x, batch, index, head), t);
            void *to = ds_at(y->data, offset_of(y, batch, index, head), t);
            turn_head(to, from, &by, d, t, interleaved, large && ds_aligned(to));
        }
    }
    if (large) ds_fence();
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run(call, begin, end, t));
}

DS_KERNEL(ds_rope, plan, run_any);
