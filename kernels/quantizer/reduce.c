/* Sums of quantised shards, quantised again, with and without error feedback, on a CPU.
 *
 * Limit: memory, a byte or half of one an element of each shard; four operations a vector each.
 */
#include "pack.h"

/* quantized_reduction(q, params) -> (out, out_params); loco_quantized_reduction has err behind
 * params. q: [D, G, H]. */
enum { Q, PARAMS, OUT, OUT_PARAMS };
enum { L_ERR = 2, L_OUT, L_OUT_PARAMS };
enum { SHARDS = 32 /* at a time */ };

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

/* Where shards go on is fetched meanwhile: each is a stream of its own, which begins anew with each group. */
typedef struct {
    const int8_t *q;
    numbers of;
} shard;

DS_INLINE quad quad_of(const int8_t *q, const numbers *of, int64_t per_byte) {
    ds_vec2 some = number_pair(q, 0, of, per_byte), more = number_pair(q, 2 * DS_LANES, of, per_byte);
    return (quad){some.a, some.b, more.a, more.b};
}

/* Adds shards to a quad, or the first one is it. */
DS_INLINE quad add_shards(const shard *shards, int64_t count, int64_t i, int64_t n, int64_t per_byte, int is_first,
                          quad v) {
    int8_t few[QUAD];
    for (int64_t s = 0; s < count; s++) {
        const int8_t *q = shards[s].q + i / per_byte;
        __builtin_prefetch(q + n / per_byte, 0, 3);
        if (i + QUAD > n) q = __builtin_memcpy(few, q, (size_t)((n - i) / per_byte));
        quad more = quad_of(q, &shards[s].of, per_byte);
        v = is_first ? more : add_quads(v, more);
        is_first = 0;
    }
    return v;
}

DS_INLINE error error_at(const reduction *r, int64_t i) {
    return (error){.data = ds_at(r->err->data, i, r->err->dtype), .dtype = r->err->dtype, .beta = r->beta};
}

/* The sums stay in the buffer, where those of many shards wait for the rest of them. */
static range gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    const reduction *r = (const reduction *)job;
    const ds_tensor *q = ds_arg_tensor(job->call, Q, 0);
    const float *params = ds_arg_tensor(job->call, PARAMS, 0)->data;
    int64_t many = q->shape[0], done = 0;
    shard some[SHARDS];
    ranges_of_four ranges;
    do {
        int64_t count = ds_min(SHARDS, many - done);
        for (int64_t s = 0; s < count; s++) {
            int64_t g = (done + s) * job->groups + group;
            some[s].q = (const int8_t *)q->data + (g * job->length + at) / r->per_byte;
            some[s].of = numbers_of(params[2 * g], params[2 * g + 1]);
        }
        ranges = begin_ranges();
        for (int64_t i = 0; i < n; i += QUAD) {
            quad v = {{0}};
            if (done) v = load_quad(to->values + i, DS_F32);
            if (r->per_byte == 1) v = add_shards(some, count, i, n, 1, !done, v);
            else v = add_shards(some, count, i, n, 2, !done, v);
            if (r->err && done + count == many)
                v = add_quads(v, errors_at(error_at(r, group * job->length + at), i, n));
            ranges = keep_quad(to, i, n, v, ranges);
        }
        done += count;
    } while (done < many);
    return end_ranges(ranges);
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    const reduction *r = (const reduction *)job;
    const ds_tensor *out = ds_arg_tensor(job->call, r->err ? L_OUT : OUT, 0);
    int64_t value = group * job->length + at;
    place to = place_of_bytes(out, value, r->per_byte);
    if (r->err) pack_with_error(from, n, p, job->levels, to, error_at(r, value));
    else pack(from->values, DS_F32, n, p, job->levels, to);
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
