/* Sums of quantised shards, quantised again, with and without error feedback, on a CPU.
 *
 * Limit: memory, a byte or half of one an element of each shard; four operations a vector each.
 */
#include "pack.h"

/* quantized_reduction(q, params) -> (out, out_params); loco_quantized_reduction has err behind
 * params. q: [D, G, H]. */
enum { Q, PARAMS, OUT, OUT_PARAMS };
enum { L_ERR = 2, L_OUT, L_OUT_PARAMS };

typedef struct {
    job job; /* first: a pointer to one is a pointer to the other */
    int64_t per_byte;
    const ds_tensor *err; /* NULL without */
    float beta;
} reduction;

DS_INLINE int64_t loco_per_byte(const ds_call *call) {
    const ds_tensor *err = ds_arg_tensor(call, L_ERR, 0);
    return err->shape[err->ndim - 1];
}

static void plan_of(const ds_call *call, int64_t per_byte, ds_plan *out) {
    const ds_tensor *q = ds_arg_tensor(call, Q, 0);
    plan_groups(q->shape[1], q->shape[2] * per_byte, out);
}

static void plan(const ds_call *call, ds_plan *out) { plan_of(call, 8 / call->attributes[0].i, out); }

static void loco_plan(const ds_call *call, ds_plan *out) { plan_of(call, loco_per_byte(call), out); }

/* Where a shard goes on is fetched meanwhile: it is a stream of its own, which begins anew with each group. */
DS_INLINE void add_shard(const int8_t *q, int64_t n, float *values, const numbers *of, int64_t per_byte, int is_first) {
    int64_t i = 0;
    for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES) {
        __builtin_prefetch(q + ((i + n) >> (per_byte - 1)), 0, 3);
        ds_vec2 v = number_pair(q, i, of, per_byte);
        if (!is_first) v = (ds_vec2){v.a + ds_load(values, i, DS_F32), v.b + ds_load(values, i + DS_LANES, DS_F32)};
        ds_store2(values, i, v, DS_F32, 0);
    }
    for (; i < n; i += DS_LANES) {
        ds_vec v = number_first(q, i, n - i, of, per_byte);
        if (!is_first) v += ds_load(values, i, DS_F32);
        ds_store(values, i, v, DS_F32);
    }
}

static range gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    const reduction *r = (const reduction *)job;
    const ds_tensor *q = ds_arg_tensor(job->call, Q, 0);
    const float *params = ds_arg_tensor(job->call, PARAMS, 0)->data;
    to->next = 0;
    if (q->shape[0] == 0) __builtin_memset(to->values, 0, BLOCK * sizeof(float));
    for (int64_t shard = 0; shard < q->shape[0]; shard++) {
        int64_t g = shard * job->groups + group;
        const int8_t *from = (const int8_t *)q->data + (g * job->length + at) / r->per_byte;
        numbers of = numbers_of(params[2 * g], params[2 * g + 1]);
        if (r->per_byte == 1) add_shard(from, n, to->values, &of, 1, shard == 0);
        else add_shard(from, n, to->values, &of, 2, shard == 0);
    }
    if (r->err) add_error(r->err, group * job->length + at, n, to);
    return range_of(to, n);
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    const reduction *r = (const reduction *)job;
    const ds_tensor *out = ds_arg_tensor(job->call, r->err ? L_OUT : OUT, 0);
    int64_t to = group * job->length + at;
    pack(from, n, p, job->levels, r->per_byte, (int8_t *)out->data + to / r->per_byte,
         ds_streams(ds_elements(out), DS_I8));
    if (r->err) update_error(r->err, to, n, from, p, job->levels, r->beta);
}

static reduction reduction_of(const ds_call *call, int64_t per_byte, int symmetric) {
    const ds_tensor *q = ds_arg_tensor(call, Q, 0);
    return (reduction){
        .job = {.groups = q->shape[1],
                .length = q->shape[2] * per_byte,
                .levels = per_byte == 1 ? 128 : 8,
                .symmetric = symmetric,
                .call = call,
                .gather = gather,
                .finish = finish},
        .per_byte = per_byte,
    };
}

static int64_t same_place(const job *job, int64_t group) {
    (void)job;
    return group;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    reduction r = reduction_of(call, 8 / call->attributes[0].i, (int)call->attributes[1].i);
    run_groups(&r.job, ds_arg_tensor(call, OUT_PARAMS, 0)->data, same_place, phase, begin, end);
    ds_fence();
}

static void loco_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    reduction r = reduction_of(call, loco_per_byte(call), (int)call->attributes[0].i);
    r.err = ds_arg_tensor(call, L_ERR, 0);
    r.beta = (float)call->scalars[0].f;
    run_groups(&r.job, ds_arg_tensor(call, L_OUT_PARAMS, 0)->data, same_place, phase, begin, end);
    ds_fence();
}

DS_KERNEL(ds_quantized_reduction, plan, run);
DS_KERNEL(ds_loco_quantized_reduction, loco_plan, loco_run);
