/* The greatest elements of rows, sorted, on a CPU.
 *
 * Limit: memory for long rows, where nearly every vector is behind all that is kept and is passed over by
 * one comparison. What is kept is a heap whose root is the last of it, at most as long as K. Of a short row,
 * where nearly every element would go through the heap by branches that nothing foresees, the greatest is
 * looked for again and again.
 */
#include "ds_cpu_lanes.h"

/* top_k(x, values, indices). An item is a row. */
enum { X, VALUES, INDICES };
enum { CHUNK_ELEMENTS = 8 * 1024, MOST_CHUNKS = 1024 };

static int64_t kept_of(const ds_call *call) { return ds_row_length(ds_arg_tensor(call, VALUES, 0)); }

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    int64_t rows = ds_rows(x);
    out->phases = 1;
    out->phase[0].items = rows;
    out->phase[0].grain = ds_max(ds_max(1, CHUNK_ELEMENTS / ds_max(1, ds_row_length(x))), ds_div_up(rows, MOST_CHUNKS));
    out->workspace_bytes = ds_div_up(rows, out->phase[0].grain) * kept_of(call) * 8;
}

/* A number that is greater the more an element is in front: above all a NaN, then the greater value, then
 * the lower index. Zeros of both signs are one value. */
DS_INLINE uint64_t rank_of(float v, int64_t index) {
    uint32_t bits = DS_BITS_OF(v + 0.0f);
    bits = v != v ? 0xffffffff : bits & 0x80000000 ? ~bits : bits | 0x80000000;
    return (uint64_t)bits << 32 | (uint32_t)~(uint32_t)index;
}

DS_INLINE int64_t index_of(uint64_t rank) { return (uint32_t)~(uint32_t)rank; }

/* Puts `rank` where the heap's root was, the least of `n`. */
DS_INLINE void sift(uint64_t *heap, int64_t n, uint64_t rank) {
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= rank) break;
        heap[at] = heap[child];
    }
    heap[at] = rank;
}

/* The value of a rank, where it is no NaN. */
DS_INLINE float value_of(uint64_t rank) {
    uint32_t bits = (uint32_t)(rank >> 32);
    return DS_FLOAT_OF(bits & 0x80000000 ? bits & 0x7fffffff : ~bits);
}

enum { SHORT = 16 * DS_LANES };

/* The elements of a short row in the order of `rank_of`, as signed integers; INT32_MIN is none. */
DS_INLINE ds_vec_i32 keys_of(const void *x, int64_t i, int64_t n, uint32_t t, ds_vec_i32 lane) {
    ds_vec v = ds_load_first(n - i, x, i, t) + 0.0f;
    ds_vec_i32 bits = (ds_vec_i32)v, nan = v != v, none = lane >= (int32_t)ds_min(n - i, DS_LANES);
    ds_vec_i32 key = (bits ^ (bits >> 31 & INT32_MAX)) & ~nan;
    return (((nan & INT32_MAX) | key) & ~none) | (none & INT32_MIN);
}

DS_INLINE ds_vec_i32 greater(ds_vec_i32 a, ds_vec_i32 b) {
#if DS_LANES == 16 /* compilers make masks of what is compared */
    return (ds_vec_i32)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    return ((a > b) & a) | (~(a > b) & b);
#endif
}

DS_INLINE int32_t greatest(ds_vec_i32 keys) {
#if DS_LANES == 16
    return _mm512_reduce_max_epi32((__m512i)keys);
#else
    int32_t most = keys[0];
    for (int i = 1; i < DS_LANES; i++) most = keys[i] > most ? keys[i] : most;
    return most;
#endif
}

/* The `k` first ones of `n`, in order, into `ranks`; of a short row. The dtype is asked each time. */
static __attribute__((noinline)) void first_of_short(uint64_t *ranks, int64_t k, const void *x, int64_t n, uint32_t t) {
    ds_vec_i32 lane, keys[SHORT / DS_LANES];
    for (int i = 0; i < DS_LANES; i++) lane[i] = i;
    if (t > DS_BF16) __builtin_unreachable();
    int64_t vectors = ds_div_up(n, DS_LANES);
    for (int64_t i = 0; i < vectors; i++) keys[i] = keys_of(x, i * DS_LANES, n, t, lane);
    for (int64_t place = 0; place < ds_min(k, n); place++) {
        ds_vec_i32 most = keys[0];
        for (int64_t i = 1; i < vectors; i++) most = greater(most, keys[i]);
        most = (ds_vec_i32){0} + greatest(most);
        int64_t in = 0;
        uint32_t found = 0;
        for (int64_t i = vectors; i-- > 0;) { /* the first one that has it is the last that is taken */
            uint32_t equal = ds_equal_i32(keys[i], most);
            in = equal ? i : in;
            found = equal ? equal : found;
        }
        int at = __builtin_ctz(found);
        ds_vec_i32 taken = lane == at;
        keys[in] = (keys[in] & ~taken) | (taken & INT32_MIN);
        ranks[place] = rank_of(0, in * DS_LANES + at);
    }
}

/* The `k` first ones of `n`, in order, into `heap`. */
DS_INLINE void first_of(uint64_t *heap, int64_t k, const void *x, int64_t n, uint32_t t) {
    for (int64_t i = 0; i < k; i++) heap[i] = 0; /* behind everything */
    ds_vec root = ds_splat(-__builtin_inff());
    int all_kept = 0;
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load_first(n - i, x, i, t);
        /* Equal ones come later, and are behind. */
        uint32_t in_front = all_kept ? ds_not_at_most(v, root) : (1u << DS_LANES) - 1;
        if (n - i < DS_LANES) in_front &= (1u << (n - i)) - 1;
        if (!in_front) continue;
        float lanes[DS_LANES];
        ds_store(lanes, 0, v, DS_F32);
        for (; in_front; in_front &= in_front - 1) {
            int lane = __builtin_ctz(in_front);
            uint64_t rank = rank_of(lanes[lane], i + lane);
            if (rank > heap[0]) sift(heap, k, rank);
        }
        /* With a NaN as the root nothing compares, and every vector is looked at. */
        all_kept = heap[0] != 0 && heap[0] >> 32 != 0xffffffff;
        root = ds_splat(value_of(heap[0]));
    }
    for (int64_t left = k; left-- > 0;) { /* the least one goes to the end */
        uint64_t least = heap[0], last = heap[left];
        if (left > 0) sift(heap, left, last);
        heap[left] = least;
    }
}

DS_INLINE void run_rows(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    ds_plan made;
    plan(call, &made);
    int64_t k = kept_of(call), n = ds_row_length(x);
    if (k == 0) return;
    uint64_t *heap = (uint64_t *)call->workspace + begin / made.phase[0].grain * k;
    char *values = ds_arg_tensor(call, VALUES, 0)->data;
    int64_t *indices = ds_arg_tensor(call, INDICES, 0)->data;
    for (int64_t row = begin; row < end; row++) {
        const char *from = ds_at(x->data, ds_row_offset(x, row), t);
        if (n <= SHORT) first_of_short(heap, k, from, n, t);
        else first_of(heap, k, from, n, t);
        for (int64_t i = 0; i < k; i++) {
            int64_t index = i < n ? index_of(heap[i]) : -1, at = row * k + i;
            indices[at] = index;
            if (index >= 0) __builtin_memcpy(ds_at(values, at, t), ds_at(from, index, t), (size_t)ds_size(t));
            else ds_store_first(1, values, at, ds_splat(-__builtin_inff()), t);
        }
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, X, 0)->dtype, run_rows(call, begin, end, t));
}

DS_KERNEL(ds_top_k, plan, run);
