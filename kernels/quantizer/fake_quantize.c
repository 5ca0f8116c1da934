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

static range gather(const job *job, int64_t group, int64_t at, int64_t n, block *to) {
    (void)to;
    const ds_tensor *tensor = ds_arg_tensor(job->call, X, 0);
    const void *x = ds_at(tensor->data, group * job->length + at, tensor->dtype);
    return tensor->dtype == DS_F32 ? range_of_floats(x, n) : range_of_halves(x, n, tensor->dtype);
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

DS_INLINE ds_vec fake(ds_vec v, params p, scaling by, const uint32_t *words) {
    v = scaled(v, by);
    v = words ? round_by(v, words) : v + WHOLE - WHOLE;
    return v * p.step + p.offset;
}

/* Elements [i, end) of a block of `n`; `x` and `y` are where element 0 comes from and goes, word `i` is the
 * first of `words`. */
DS_INLINE void write(void *y, const void *x, int64_t i, int64_t end, int64_t n, params p, float levels,
                     const uint32_t *words, uint32_t t, int streams) {
    int plain = is_plain(p);
    const scaling by = scaling_of(p, levels);
    int64_t begin = i;
    for (; i + 2 * DS_LANES <= end; i += 2 * DS_LANES) {
        __asm__ volatile("" : "+r"(words)); /* one loop for both roundings */
        const uint32_t *some = words ? words + i - begin : NULL;
        fetch_next(x, n, i, 1, ds_size(t));
        ds_vec2 v = ds_load2_in_order(x, i, t);
        v = (ds_vec2){fake(v.a, p, by, some), fake(v.b, p, by, some ? some + DS_LANES : NULL)};
        ds_store2_in_order(y, i, v, t, plain, streams);
    }
    for (; i < end; i += DS_LANES) {
        ds_vec v = fake(ds_load_first(end - i, x, i, t), p, by, words ? words + i - begin : NULL);
        ds_store_first(end - i, y, i, v, t);
    }
}

static void finish(const job *job, int64_t group, int64_t at, int64_t n, const block *from, params p) {
    (void)from;
    const ds_tensor *tensor = ds_arg_tensor(job->call, Y, 0);
    int64_t to = group * job->length + at;
    void *y = ds_at(tensor->data, to, tensor->dtype);
    const void *x = ds_at(ds_arg_tensor(job->call, X, 0)->data, to, tensor->dtype);
    int streams = ds_streams(ds_elements(tensor), tensor->dtype) && ds_aligned(y);
    int stochastic = (int)job->call->attributes[STOCHASTIC].i;
    ds_random random;
    uint64_t seed = (uint64_t)job->call->scalars[SEED].i, position = (uint64_t)job->call->scalars[OFFSET].i + (uint64_t)to;
    for (int64_t i = 0; i < n; i += DS_RANDOM_TILE) {
        int64_t end = ds_min(i + DS_RANDOM_TILE, n);
        const uint32_t *words = NULL;
        if (stochastic) words = ds_random_words(&random, seed, position + (uint64_t)i, end - i);
        DS_WITH_FLOAT(t, tensor->dtype, write(y, x, i, end, n, p, job->levels, words, t, streams));
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
