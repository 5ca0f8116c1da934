/* Rows chosen by an index: gathered, and added up, on a CPU.
 *
 * Limit: memory. index_select reads a row and writes it; scatter_add reads two and writes one.
 * An index that is none of a row, a negative one among them, gives a row of zeros, and adds nothing:
 * no byte outside of a tensor is touched, and each is the other's gradient.
 */
#include "ds_cpu_simd.h"

enum { CHUNK_BYTES = 64 * 1024, PAIR = 2 * DS_LANES };

DS_INLINE int64_t index_at(const ds_tensor *index, int64_t i) {
    return index->dtype == DS_I32 ? ((const int32_t *)index->data)[i] : ((const int64_t *)index->data)[i];
}

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

static void run_select(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *index = ds_arg_tensor(call, INDEX, 0);
    const ds_tensor *y = ds_arg_tensor(call, Y, 0);
    int64_t bytes = width_of(y) * ds_size(y->dtype), x_stride = x->strides[0] * ds_size(x->dtype);
    int large = ds_streams(ds_elements(y), y->dtype);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = index_at(index, i);
        char *to = (char *)y->data + i * bytes;
        if (row < 0 || row >= x->shape[0]) __builtin_memset(to, 0, (size_t)bytes);
        else copy_row(to, (const char *)x->data + row * x_stride, bytes, large);
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

DS_INLINE void add_row(float *y, const void *x, int64_t begin, int64_t end, uint32_t t) {
    int64_t i = begin;
    for (; i + DS_LANES <= end; i += DS_LANES) ds_store(y, i, ds_load(y, i, DS_F32) + ds_load(x, i, t), DS_F32);
    if (i == end) return;
    ds_vec sum = ds_load_first(end - i, y, i, DS_F32) + ds_load_first(end - i, x, i, t);
    ds_store_first(end - i, y, i, sum, DS_F32);
}

DS_INLINE void add_columns(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *y = ds_arg_tensor(call, S_Y, 0), *index = ds_arg_tensor(call, S_INDEX, 0);
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0);
    int64_t width = width_of(x);
    for (int64_t i = 0; i < x->shape[0]; i++) {
        int64_t row = index_at(index, i);
        if (row < 0 || row >= y->shape[0]) continue;
        add_row((float *)y->data + row * width, ds_at(x->data, i * width, t), begin, end, t);
    }
}

static void run_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0);
    int64_t first = begin * COLUMNS, last = ds_min(end * COLUMNS, width_of(x));
    DS_WITH_FLOAT(t, x->dtype, add_columns(call, first, last, t));
}

DS_KERNEL(ds_scatter_add, plan_add, run_add);
