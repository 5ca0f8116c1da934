/* Quantisation and back at once, on a CPU.
 *
 * Limit: memory, an element of T read and written. With stochastic rounding it is arithmetic: Philox
 * takes about ten vector operations a word.
 */
#include "ds_cpu_random.h"
#include "group.h"

/* fake_quantize(x) -> y */
enum { X, Y };
enum { BITS, SYMMETRIC, STOCHASTIC };
enum { SEED, OFFSET };

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    plan_groups(x->shape[0], x->shape[1], out);
}

static const void *gather(const job *job, int64_t group, int64_t at, int64_t n, float *values) {
    const ds_tensor *x = ds_arg_tensor(job->call, X, 0);
    int64_t from = group * job->length + at;
    DS_WITH_FLOAT(t, x->dtype, read_values(x->data, from, n, values, t));
    return ds_at(x->data, from + n, x->dtype);
}

/* The whole number below, or the one above as likely as it is near. */
DS_INLINE ds_vec round_by(ds_vec v, const uint32_t *words) {
    ds_vec_u32 word;
    __builtin_memcpy(&word, words, sizeof word);
    ds_vec near = v + WHOLE - WHOLE, one = ds_splat(1);
    ds_vec below = near - ds_vselect(near > v, one, ds_splat(0));
    ds_vec uniform = __builtin_convertvector((ds_vec_i32)(word >> 8), ds_vec) * 0x1p-24f;
    return below + ds_vselect(uniform < v - below, one, ds_splat(0));
}

DS_INLINE ds_vec fake(ds_vec v, params p, float levels, const uint32_t *words) {
    v = scaled(v, p, levels);
    v = words ? round_by(v, words) : v + WHOLE - WHOLE;
    return v * p.step + p.offset;
}

DS_INLINE void write(void *y, int64_t at, int64_t n, const float *values, params p, float levels,
                     const uint32_t *words, uint32_t t, int streams) {
    int64_t i = 0;
    for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES) {
        ds_vec a = fake(ds_load(values, i, DS_F32), p, levels, words ? words + i : NULL);
        ds_vec b = fake(ds_load(values, i + DS_LANES, DS_F32), p, levels, words ? words + i + DS_LANES : NULL);
        store_two(y, at + i, a, b, t, streams);
    }
    for (; i < n; i += DS_LANES) {
        ds_vec v = fake(ds_load(values, i, DS_F32), p, levels, words ? words + i : NULL);
        ds_store_first(n - i, y, at + i, v, t);
    }
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const float *values, params p) {
    const ds_tensor *y = ds_arg_tensor(job->call, Y, 0);
    int64_t to = group * job->length + at;
    int streams = ds_streams(ds_elements(y), y->dtype) && ds_aligned(ds_at(y->data, to, y->dtype));
    if (!job->call->attributes[STOCHASTIC].i) {
        DS_WITH_FLOAT(t, y->dtype, write(y->data, to, n, values, p, job->levels, NULL, t, streams));
        return;
    }
    ds_random words;
    uint64_t seed = (uint64_t)job->call->scalars[SEED].i, position = (uint64_t)job->call->scalars[OFFSET].i + (uint64_t)to;
    for (int64_t i = 0; i < n; i += DS_RANDOM_TILE) {
        int64_t some = ds_min(DS_RANDOM_TILE, n - i);
        const uint32_t *first = ds_random_words(&words, seed, position + (uint64_t)i, some);
        DS_WITH_FLOAT(t, y->dtype, write(y->data, to + i, some, values + i, p, job->levels, first, t, streams));
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0);
    job job = {
        .groups = x->shape[0],
        .length = x->shape[1],
        .levels = (float)(1 << (call->attributes[BITS].i - 1)),
        .symmetric = (int)call->attributes[SYMMETRIC].i,
        .call = call,
        .gather = gather,
        .finish = finish,
    };
    run_groups(&job, NULL, NULL, phase, begin, end);
    ds_fence();
}

DS_KERNEL(ds_fake_quantize, plan, run);
