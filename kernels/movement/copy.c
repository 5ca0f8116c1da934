/* Copies between tensors of any strides, on a CPU.
 *
 * Limit: memory. An element is read and written once. What lies contiguously on both sides is moved in
 * vectors; where another dimension of the source does, as after a transpose, in square tiles that are
 * turned within registers; a large contiguous result goes past the caches. Nothing is computed, so the
 * dtype is its size.
 */
#include "ds_cpu_copy.h"
#include "tile.h"

/* copy(x) -> y. Dimensions are put in order: last the one along which y is contiguous. Where x is
 * contiguous along another one, that comes before it, and an item is a block of the two; else an item
 * is a block of a row. */
enum { X, Y };
enum { BLOCK = 16 * 1024 };

typedef struct {
    ds_views v;
    int turned; /* x is contiguous along the dimension before the last one, y along the last one */
    int64_t length, blocks, rows;
    int large; /* the result goes past the caches */
    int64_t height, down, across, block_height, block_length; /* where turned: of a matrix */
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
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    s.large = ds_streams(ds_elements(y), y->dtype);
    if (!s.turned) return s;
    s.height = s.v.shape[last - 1];
    s.block_height = block_height(ds_size(y->dtype), s.large);
    s.block_length = block_length(ds_size(y->dtype));
    s.down = ds_div_up(s.height, s.block_height);
    s.across = ds_div_up(s.length, s.block_length);
    return s;
}

static void plan(const ds_call *call, ds_plan *out) {
    shape s = shape_of(call);
    out->phases = 1;
    if (s.turned) {
        out->phase[0].items = s.rows / ds_max(1, s.height) * s.down * s.across;
        out->phase[0].grain = 1;
    } else {
        out->phase[0].items = s.rows * s.blocks;
        out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, s.length));
    }
}

static void copy_rows(const ds_call *call, const shape *s, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    int32_t last = s->v.ndim - 1;
    int64_t size = ds_size(x->dtype), from_stride = s->v.strides[X][last], to_stride = s->v.strides[Y][last];
    for (int64_t item = begin; item < end; item++) {
        int64_t row = s->blocks == 1 ? item : item / s->blocks, i = (item - row * s->blocks) * BLOCK;
        int64_t n = ds_min(BLOCK, s->length - i);
        const char *from = (const char *)x->data + (ds_views_offset(&s->v, X, row) + i * from_stride) * size;
        char *to = (char *)y->data + (ds_views_offset(&s->v, Y, row) + i * to_stride) * size;
        if (from_stride == 1 && to_stride == 1) ds_copy_bytes(to, from, 0, n * size, s->large);
        else ds_gather(to, to_stride, from, from_stride, n, size);
    }
    if (s->large) ds_fence();
}

/* x is contiguous along the dimension before the last one, y along the last one. */
static void turn_blocks(const ds_call *call, const shape *s, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = ds_arg_tensor(call, Y, 0);
    int32_t last = s->v.ndim - 1;
    int64_t size = ds_size(x->dtype);
    turn t = {.size = size, .from_stride = s->v.strides[X][last] * size, .to_stride = s->v.strides[Y][last - 1] * size,
              .large = s->large};
    for (int64_t item = begin; item < end; item++) {
        int64_t matrix = item / (s->down * s->across), block = item % (s->down * s->across);
        int64_t i = block / s->across * s->block_height, j = block % s->across * s->block_length;
        int64_t row = matrix * s->height + i;
        t.from = (const char *)x->data + ds_views_offset(&s->v, X, row) * size + j * t.from_stride;
        t.to = (char *)y->data + (ds_views_offset(&s->v, Y, row) + j) * size;
        t.streams = s->large && ds_aligned(t.to) && t.to_stride % WIDTH == 0;
        turn_block(&t, ds_min(s->block_height, s->height - i), ds_min(s->block_length, s->length - j));
    }
    if (s->large) ds_fence();
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    shape s = shape_of(call);
    if (s.turned) turn_blocks(call, &s, begin, end);
    else copy_rows(call, &s, begin, end);
}

DS_KERNEL(ds_copy, plan, run);
