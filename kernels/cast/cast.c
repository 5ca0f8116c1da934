/* Conversion between dtypes, on a CPU.
 *
 * Limit: memory. f32 to bf16 reads 4 bytes and writes 2 an element; a large result goes past the
 * caches. From f32, to f32 and between bf16 and f16 an element passes through a register; all other pairs
 * meet in the first level of the caches, as pieces of f32, f64 or i64, whichever holds every value of the
 * source.
 */
#include "ds_cpu_copy.h"
#include "ds_cpu_strided.h"
#include "pieces.h"

/* cast(x) -> y. An item is a block of a row of the collapsed call. */
enum { X, Y };
enum { BLOCK = 16 * 1024 };

static void plan(const ds_call *call, ds_plan *out) {
    ds_views v = ds_collapse(call, 2);
    int64_t length = ds_views_length(&v);
    out->phases = 1;
    out->phase[0].items = ds_views_rows(&v) * ds_div_up(length, BLOCK);
    out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, length));
}

/* Whether a vector of one becomes a vector of the other, without a stop in memory. */
static int is_direct(uint32_t a, uint32_t b) {
    return a == DS_F32 || b == DS_F32 || (a <= DS_BF16 && b <= DS_BF16);
}

/* Whole vectors. */
static void convert_whole(const void *x, uint32_t a, void *y, uint32_t b, int64_t n, int streams) {
    if (is_direct(a, b)) {
        convert_vectors(x, a, y, b, n, streams);
        return;
    }
    for (int64_t i = 0; i < n; i += PIECE) convert_piece(ds_at(x, i, a), a, ds_at(y, i, b), b, ds_min(PIECE, n - i));
}

static void convert(const void *x, uint32_t a, void *y, uint32_t b, int64_t n, int streams) {
    if (a == b) { /* bits are kept, also those of signalling NaN */
        ds_copy_bytes(y, x, 0, n * ds_size(a), streams);
        return;
    }
    int64_t rest = n % DS_LANES, whole = n - rest;
    convert_whole(x, a, y, b, whole, streams);
    if (rest == 0) return;
    char from[DS_LANES * 8] = {0}, to[DS_LANES * 8];
    __builtin_memcpy(from, ds_at(x, whole, a), (size_t)(rest * ds_size(a)));
    convert_whole(from, a, to, b, DS_LANES, 0);
    __builtin_memcpy(ds_at(y, whole, b), to, (size_t)(rest * ds_size(b)));
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    uint32_t a = x->dtype, b = y->dtype;
    ds_views v = ds_collapse(call, 2);
    int64_t length = ds_views_length(&v), blocks = ds_div_up(length, BLOCK);
    int64_t from_stride = v.strides[X][v.ndim - 1], to_stride = v.strides[Y][v.ndim - 1];
    int large = ds_streams(ds_elements(y), b) && to_stride == 1;
    _Alignas(64) char from[PIECE * 8], to[PIECE * 8];
    for (int64_t item = begin; item < end; item++) {
        int64_t row = blocks == 1 ? item : item / blocks, i = (item - row * blocks) * BLOCK;
        int64_t n = ds_min(BLOCK, length - i);
        const void *at_x = ds_at(x->data, ds_views_offset(&v, X, row) + i * from_stride, a);
        void *at_y = ds_at(y->data, ds_views_offset(&v, Y, row) + i * to_stride, b);
        if (from_stride == 1 && to_stride == 1) {
            convert(at_x, a, at_y, b, n, large && ds_aligned(at_y));
            continue;
        }
        for (int64_t k = 0; k < n; k += PIECE) {
            int64_t m = ds_min(PIECE, n - k);
            ds_gather(from, 1, ds_at(at_x, k * from_stride, a), from_stride, m, ds_size(a));
            convert(from, a, to, b, m, 0);
            ds_gather(ds_at(at_y, k * to_stride, b), to_stride, to, 1, m, ds_size(b));
        }
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_cast, plan, run);
