/* Copies between tensors of any strides, on a CPU.
 *
 * Limit: memory. An element is read and written once. What lies contiguously on both sides is moved in
 * vectors; where another dimension of the source does, as after a transpose, in square tiles that are
 * turned within registers; a large contiguous result goes past the caches. Nothing is computed, so the
 * dtype is its size.
 */
#include "tile.h"

/* copy(x) -> y. Dimensions are put in order: last the one along which y is contiguous. Where x is
 * contiguous along another one, that comes before it, and an item is a block of SIDE by SIDE of the
 * two; else an item is a block of a row. */
enum { X, Y };
enum { BLOCK = 16 * 1024, SIDE = 128 };

typedef struct {
    ds_views v;
    int turned; /* x is contiguous along the dimension before the last one, y along the last one */
    int64_t length, blocks, rows;
} shape;

/* Moves dimension `d` behind those up to `to`; the order of dimensions is nothing to a copy. */
static void move_dimension(ds_views *v, int32_t d, int32_t to) {
    for (; d < to && d + 1 < DS_MAX_RANK; d++) {
        int64_t extent = v->shape[d];
        v->shape[d] = v->shape[d + 1], v->shape[d + 1] = extent;
        for (uint32_t i = 0; i < 2; i++) {
            int64_t stride = v->strides[i][d];
            v->strides[i][d] = v->strides[i][d + 1], v->strides[i][d + 1] = stride;
        }
    }
}

/* The dimension along which tensor `i` is contiguous, or -1. */
static int32_t contiguous_dimension(const ds_views *v, uint32_t i) {
    int32_t d = v->ndim - 1;
    while (d >= 0 && v->strides[i][d] != 1) d--;
    return d;
}

static shape shape_of(const ds_call *call) {
    shape s = {.v = ds_collapse(call, 2)};
    int32_t last = s.v.ndim - 1, of_y = contiguous_dimension(&s.v, Y);
    if (of_y >= 0) move_dimension(&s.v, of_y, last);
    int32_t of_x = contiguous_dimension(&s.v, X);
    s.turned = of_y >= 0 && of_x >= 0 && of_x < last;
    if (s.turned) move_dimension(&s.v, of_x, last - 1);
    s.length = ds_views_length(&s.v);
    s.rows = ds_views_rows(&s.v);
    s.blocks = ds_div_up(s.length, BLOCK);
    return s;
}

static void plan(const ds_call *call, ds_plan *out) {
    shape s = shape_of(call);
    out->phases = 1;
    if (s.turned) {
        int64_t height = s.v.shape[s.v.ndim - 2];
        int64_t matrices = s.rows / ds_max(1, height);
        out->phase[0].items = matrices * ds_div_up(height, SIDE) * ds_div_up(s.length, SIDE);
        out->phase[0].grain = 1;
    } else {
        out->phase[0].items = s.rows * s.blocks;
        out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, s.length));
    }
}

static void copy_row(char *to, const char *from, int64_t bytes, int streams) {
    int64_t i = 0, width = sizeof(ds_vec);
    if (streams && ds_aligned(to))
        for (; i + width <= bytes; i += width) {
            ds_vec_u32 v;
            __builtin_memcpy(&v, from + i, sizeof v);
            ds_put(to + i, v, 1);
        }
    __builtin_memcpy(to + i, from + i, (size_t)(bytes - i));
}

static void copy_rows(const ds_call *call, const shape *s, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    int32_t last = s->v.ndim - 1;
    int64_t size = ds_size(x->dtype), from_stride = s->v.strides[X][last], to_stride = s->v.strides[Y][last];
    int large = ds_streams(ds_elements(y), y->dtype);
    for (int64_t item = begin; item < end; item++) {
        int64_t row = s->blocks == 1 ? item : item / s->blocks, i = (item - row * s->blocks) * BLOCK;
        int64_t n = ds_min(BLOCK, s->length - i);
        const char *from = (const char *)x->data + (ds_views_offset(&s->v, X, row) + i * from_stride) * size;
        char *to = (char *)y->data + (ds_views_offset(&s->v, Y, row) + i * to_stride) * size;
        if (from_stride == 1 && to_stride == 1) copy_row(to, from, n * size, large);
        else ds_gather(to, to_stride, from, from_stride, n, size);
    }
    if (large) ds_fence();
}

/* x is contiguous along the dimension before the last one, y along the last one. */
static void turn_blocks(const ds_call *call, const shape *s, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    int32_t last = s->v.ndim - 1;
    int64_t size = ds_size(x->dtype), height = s->v.shape[last - 1];
    int64_t down = ds_div_up(height, SIDE), across = ds_div_up(s->length, SIDE);
    turn t = {.size = size, .from_stride = s->v.strides[X][last] * size, .to_stride = s->v.strides[Y][last - 1] * size};
    for (int64_t item = begin; item < end; item++) {
        int64_t matrix = item / (down * across), block = item % (down * across);
        int64_t i = block / across * SIDE, j = block % across * SIDE;
        int64_t row = matrix * height + i;
        t.from = (const char *)x->data + ds_views_offset(&s->v, X, row) * size + j * t.from_stride;
        t.to = (char *)y->data + (ds_views_offset(&s->v, Y, row) + j) * size;
        turn_block(&t, ds_min(SIDE, height - i), ds_min(SIDE, s->length - j));
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    shape s = shape_of(call);
    if (s.turned) turn_blocks(call, &s, begin, end);
    else copy_rows(call, &s, begin, end);
}

DS_KERNEL(ds_copy, plan, run);
