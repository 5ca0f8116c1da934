/* Conversion between f32, bf16 and f16, on a CPU: to nearest, ties to even.
 *
 * Limit: memory. f32 to bf16 reads 4 bytes and writes 2 an element, and a store to memory that is
 * not in cache first reads the line: 8. The conversion itself is a few operations a vector.
 */
#include "ds_cpu_simd.h"

/* cast(x) -> y. The call is a matrix of contiguous rows, one row where both tensors have no gaps;
 * an item is a block of a row. */
enum { X, Y };
enum { BLOCK = 16 * 1024 };

typedef struct {
    int64_t length;         /* of a row */
    int64_t blocks_per_row;
    int64_t blocks;
    int one_row;
} shape;

/* Whether the elements lie one after another. */
static int is_contiguous(const ds_tensor *t) {
    int64_t stride = 1;
    for (int32_t d = t->ndim - 1; d >= 0; d--) {
        if (t->shape[d] != 1 && t->strides[d] != stride) return 0;
        stride *= t->shape[d];
    }
    return 1;
}

static shape shape_of(const ds_call *call) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    shape s;
    s.one_row = x->ndim == 0 || (is_contiguous(x) && is_contiguous(y));
    s.length = s.one_row ? ds_elements(x) : ds_row_length(x);
    s.blocks_per_row = ds_div_up(s.length, BLOCK);
    s.blocks = s.blocks_per_row * (s.one_row ? 1 : ds_rows(x));
    return s;
}

static void plan(const ds_call *call, ds_plan *out) {
    shape s = shape_of(call);
    out->phases = 1;
    out->phase[0].items = s.blocks;
    out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, s.length));
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t a, uint32_t b) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    shape s = shape_of(call);
    for (int64_t block = begin; block < end; block++) {
        int64_t row = block / s.blocks_per_row, i = block % s.blocks_per_row * BLOCK;
        int64_t stop = ds_min(i + BLOCK, s.length);
        const void *from = ds_at(x->data, s.one_row ? 0 : ds_row_offset(x, row), a);
        void *to = ds_at(y->data, s.one_row ? 0 : ds_row_offset(y, row), b);
        if (a == b) { /* bits are kept, also those of signalling NaN */
            __builtin_memmove(ds_at(to, i, b), ds_at(from, i, a), (size_t)(stop - i) * (a == DS_F32 ? 4 : 2));
            continue;
        }
        for (; i + DS_LANES <= stop; i += DS_LANES) ds_store(to, i, ds_load(from, i, a), b);
        if (i < stop) ds_store_first(stop - i, to, i, ds_load_first(stop - i, from, i, a), b);
    }
}

#define KERNEL(from, a, to, b)                                                                \
    static void run_##from##_##to(const ds_call *c, uint32_t phase, int64_t begin, int64_t end) { \
        (void)phase;                                                                          \
        run(c, begin, end, a, b);                                                             \
    }                                                                                         \
    DS_KERNEL(ds_cast_##from##_##to, plan, run_##from##_##to)

KERNEL(f32, DS_F32, f32, DS_F32);
KERNEL(f32, DS_F32, bf16, DS_BF16);
KERNEL(f32, DS_F32, f16, DS_F16);
KERNEL(bf16, DS_BF16, f32, DS_F32);
KERNEL(bf16, DS_BF16, bf16, DS_BF16);
KERNEL(bf16, DS_BF16, f16, DS_F16);
KERNEL(f16, DS_F16, f32, DS_F32);
KERNEL(f16, DS_F16, bf16, DS_BF16);
KERNEL(f16, DS_F16, f16, DS_F16);
