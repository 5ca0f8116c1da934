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

static range gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    return read_block(ds_arg_tensor(job->call, X, 0), group * job->length + at, n, to);
}

DS_INLINE void pack_into(const job *job, uint32_t q, int64_t group, int64_t at, int64_t n, const block *from,
                         params p) {
    const ds_tensor *out = ds_arg_tensor(job->call, q, 0), *x = ds_arg_tensor(job->call, X, 0);
    int64_t per_byte = per_byte_of(x);
    int8_t *to = (int8_t *)out->data + (place_of(job, group) * job->length + at) / per_byte;
    pack(from, n, p, job->levels, per_byte, to, ds_streams(ds_elements(out), DS_I8));
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    pack_into(job, Q, group, at, n, from, p);
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

static range loco_gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    gather(job, group, at, n, to);
    add_error(ds_arg_tensor(job->call, L_ERR, 0), place_of(job, group) * job->length + at, n, to);
    return range_of(to, n);
}

static void loco_finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    const ds_tensor *err = ds_arg_tensor(job->call, L_ERR, 0);
    float beta = (float)job->call->scalars[0].f;
    pack_into(job, L_Q, group, at, n, from, p);
    int64_t to = place_of(job, group) * job->length + at;
    update_error(err, to, n, from, p, job->levels, beta);
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
