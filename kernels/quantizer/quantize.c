/* Quantisation to 8 and 4 bits in groups, in place and in the order of a two-step all-to-all, with
 * and without error feedback, on a CPU.
 *
 * Limit: memory. An element of T is read, one byte or half of one written; with error feedback an
 * error of T is read and written, too. Finding the range and quantising are a dozen operations a
 * vector, on values that the first level of the caches holds.
 */
#include "pack.h"

/* quantize(x) -> (q, params); loco_swizzle_quantize(x, err) -> (q, params). */
enum { X, Q, PARAMS };
enum { L_X, L_ERR, L_Q, L_PARAMS };

/* x: [.., H, P] of groups of H * P; those of a swizzle [M, D, L, C, H, P], which leave as
 * [L, D, M, C, H]. */
DS_INLINE int64_t groups_of(const ds_tensor *x) {
    int64_t n = 1;
    for (int32_t d = 0; d < x->ndim - 2; d++) n *= x->shape[d];
    return n;
}

DS_INLINE int64_t per_byte_of(const ds_tensor *x) { return x->shape[x->ndim - 1]; }

DS_INLINE int64_t length_of(const ds_tensor *x) { return x->shape[x->ndim - 2] * x->shape[x->ndim - 1]; }

static int64_t place_of(const job *job, int64_t group) {
    const ds_tensor *x = ds_arg_tensor(job->call, X, 0);
    if (x->ndim == 3) return group;
    int64_t devices = x->shape[1], slices = x->shape[2], together = x->shape[3];
    int64_t c = group % together, slice = group / together % slices;
    int64_t device = group / together / slices % devices, node = group / together / slices / devices;
    return ((slice * devices + device) * x->shape[0] + node) * together + c;
}

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    plan_groups(groups_of(x), length_of(x), out);
}

/* The elements of x from `at` of a group on. */
DS_INLINE const void *elements_at(const job *job, int64_t group, int64_t at) {
    const ds_tensor *x = ds_arg_tensor(job->call, X, 0);
    return ds_at(x->data, group * job->length + at, x->dtype);
}

static range gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    (void)to;
    const void *x = elements_at(job, group, at);
    uint32_t dtype = ds_arg_tensor(job->call, X, 0)->dtype;
    return dtype == DS_F32 ? range_of_floats(x, n) : range_of_halves(x, n, dtype);
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    (void)from;
    const ds_tensor *out = ds_arg_tensor(job->call, Q, 0), *x = ds_arg_tensor(job->call, X, 0);
    place to = place_of_bytes(out, place_of(job, group) * job->length + at, per_byte_of(x));
    pack(elements_at(job, group, at), x->dtype, n, p, job->levels, to);
}

static job job_of(const ds_call *call) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    return (job){
        .groups = groups_of(x),
        .length = length_of(x),
        .levels = per_byte_of(x) == 1 ? 128 : 8,
        .symmetric = (int)call->attributes[0].i,
        .call = call,
        .gather = gather,
        .finish = finish,
    };
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    job job = job_of(call);
    run_groups(&job, ds_arg_tensor(call, PARAMS, 0)->data, place_of, phase, begin, end);
    ds_fence();
}

static error error_at(const job *job, int64_t group, int64_t at) {
    const ds_tensor *err = ds_arg_tensor(job->call, L_ERR, 0);
    return (error){
        .data = ds_at(err->data, place_of(job, group) * job->length + at, err->dtype),
        .dtype = err->dtype,
        .beta = (float)job->call->scalars[0].f,
    };
}

/* The sums of elements and errors stay in the buffer. */
static range loco_gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    error err = error_at(job, group, at);
    const void *from = elements_at(job, group, at);
    const int64_t size = ds_size(err.dtype);
    _Alignas(64) float few[QUAD];
    ranges_of_four r = begin_ranges();
    for (int64_t i = 0; i < n; i += QUAD) {
        const char *x = (const char *)from + i * size;
        __builtin_prefetch(x + n * size, 0, 3);
        __builtin_prefetch(x + (n + QUAD / 2) * size, 0, 3);
        if (i + QUAD > n) x = __builtin_memcpy(few, x, (size_t)((n - i) * size));
        quad v = add_quads(load_quad_of(x, err.dtype), errors_at(err, i, n));
        r = keep_quad(to, i, n, v, r);
    }
    return end_ranges(r);
}

static void loco_finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    const ds_tensor *out = ds_arg_tensor(job->call, L_Q, 0);
    int64_t per_byte = per_byte_of(ds_arg_tensor(job->call, X, 0));
    place to = place_of_bytes(out, place_of(job, group) * job->length + at, per_byte);
    pack_with_error(from, n, p, job->levels, to, error_at(job, group, at));
}

static void loco_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    job job = job_of(call);
    job.gather = loco_gather;
    job.finish = loco_finish;
    run_groups(&job, ds_arg_tensor(call, L_PARAMS, 0)->data, place_of, phase, begin, end);
    ds_fence();
}

DS_KERNEL(ds_quantize, plan, run);
DS_KERNEL(ds_loco_swizzle_quantize, plan, loco_run);
