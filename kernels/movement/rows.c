/* Rows chosen by an index: gathered, and added up, on a CPU.
 *
 * Limit: memory. index_select reads a row and writes it; scatter_add reads two and writes one.
 * An index that is none of a row, a negative one among them, gives a row of zeros, and adds nothing:
 * no byte outside of a tensor is touched, and each is the other's gradient.
 */
#include "ds_cpu_copy.h"

enum { CHUNK_BYTES = 64 * 1024 };

/* Elements of a row: all dimensions behind the first. */
static int64_t width_of(const ds_tensor *t) {
    int64_t n = 1;
    for (int32_t d = 1; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

/* index_select(x, index) -> y. An item is a row of y. */
enum { X, INDEX, Y };

static void plan_select(const ds_call *call, ds_plan *out) {
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    out->phases = 1;
    out->phase[0].items = y->shape[0];
    out->phase[0].grain = ds_max(1, CHUNK_BYTES / ds_max(1, width_of(y) * ds_size(y->dtype)));
}

/* Row `i` of the index in x, NULL where it has no such row. */
static const char *row_of(const ds_tensor *x, const ds_tensor *index, int64_t i) {
    int64_t row = ds_index_at(index, i);
    if (row < 0 || row >= x->shape[0]) return 0;
    return ds_at(x->data, row * x->strides[0], x->dtype);
}

static void run_select(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *index = ds_arg_tensor(call, INDEX, 0);
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    int64_t bytes = width_of(y) * ds_size(y->dtype);
    int large = ds_streams(ds_elements(y), y->dtype);
    const char *from = row_of(x, index, begin);
    for (int64_t i = begin; i < end; i++) {
        const char *next = i + 1 < end ? row_of(x, index, i + 1) : 0;
        char *to = (char *)y->data + i * bytes;
        if (from) ds_copy_bytes(to, from, next, bytes, large);
        else __builtin_memset(to, 0, (size_t)bytes);
        from = next;
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_index_select, plan_select, run_select);

/* scatter_add(y, index, x). An item is a block of columns, which goes through all rows of x in their
 * order, so that what is added to a row is added in one order. */
enum { S_Y, S_INDEX, S_X };
enum { COLUMNS = 16 * DS_LANES };

static void plan_add(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_div_up(width_of(ds_arg_tensor(call, S_X, 0)), COLUMNS);
    out->phase[0].grain = 1;
}

/* Fetches what is added next meanwhile; the address of x need not exist. */
DS_INLINE void add_row(float *y, const void *x, const float *next_y, const void *next_x, int64_t n, uint32_t t) {
    int64_t i = 0;
    for (; i + DS_LANES <= n; i += DS_LANES) {
        __builtin_prefetch(next_y + i, 1, 3);
        __builtin_prefetch(ds_at(next_x, i, t), 0, 3);
        ds_store(y, i, ds_load(y, i, DS_F32) + ds_load(x, i, t), DS_F32);
    }
    if (i == n) return;
    ds_store_first(n - i, y, i, ds_load_first(n - i, y, i, DS_F32) + ds_load_first(n - i, x, i, t), DS_F32);
}

/* The row of y that row `i` of x is added to, NULL where there is none. */
static float *sum_of(const ds_tensor *y, const ds_tensor *index, int64_t i, int64_t width) {
    int64_t row = ds_index_at(index, i);
    return row < 0 || row >= y->shape[0] ? 0 : (float *)y->data + row * width;
}

DS_INLINE void add_columns(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *y = ds_arg_tensor(call, S_Y, 0), *index = ds_arg_tensor(call, S_INDEX, 0);
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0);
    int64_t width = width_of(x), count = x->shape[0];
    float *to = count ? sum_of(y, index, 0, width) : 0;
    for (int64_t i = 0; i < count; i++) {
        float *next = i + 1 < count ? sum_of(y, index, i + 1, width) : 0;
        const char *from = ds_at(x->data, i * width + begin, t);
        if (to) add_row(to + begin, from, (next ? next : to) + begin, ds_at(from, width, t), end - begin, t);
        to = next;
    }
}

static void run_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0);
    int64_t first = begin * COLUMNS, last = ds_min(end * COLUMNS, width_of(x));
    DS_WITH_FLOAT(t, x->dtype, add_columns(call, first, last, t));
}

DS_KERNEL(ds_scatter_add, plan_add, run_add);
