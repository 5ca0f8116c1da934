/* Quantisation of groups: what the kernels of this folder share.
 *
 * A kernel gives what `job` asks for: how to gather values of a group as f32, and how to finish them
 * once the group's parameters are known. Values pass through a buffer in the first level of the
 * caches, so that there is one loop to find a range and one to quantise, whatever the dtype, the
 * shards or the error feedback. A group longer than a chunk is shared among threads: ranges of
 * chunks, then parameters, then the chunks again.
 */
#ifndef DS_QUANTIZER_GROUP_H
#define DS_QUANTIZER_GROUP_H

#include "values.h"

typedef struct {
    float low, high;
    float poison; /* 0, or NaN where something was no finite number */
} range;

typedef struct job {
    int64_t groups, length; /* elements of a group */
    float levels;           /* 2^(bits - 1) */
    int symmetric;
    const ds_call *call;
    /* Values [at, at + n) of a group, and where the next ones lie, to be fetched, if that is known. */
    const void *(*gather)(const struct job *job, int64_t group, int64_t at, int64_t n, float *values);
    void (*finish)(const struct job *job, int64_t group, int64_t at, int64_t n, const float *values, params p);
} job;

/* Where a group's parameters go: step and offset. */
DS_INLINE void keep(float *to, int64_t group, params p) {
    to[2 * group] = p.step;
    to[2 * group + 1] = p.offset;
}

static range range_of(float *values, int64_t n, const char *next) {
    for (int64_t i = n; i % DS_LANES; i++) values[i] = values[0];
    ds_vec low = ds_splat(__builtin_inff()), high = -low, poison = {0};
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load(values, i, DS_F32);
        if (next) __builtin_prefetch(next + 4 * i, 0, 2);
        low = ds_vmin(low, v);
        high = ds_vmax(high, v);
        poison += v * 0;
    }
    range r = {low[0], high[0], poison[0]};
    for (int lane = 1; lane < DS_LANES; lane++) {
        r.low = low[lane] < r.low ? low[lane] : r.low;
        r.high = high[lane] > r.high ? high[lane] : r.high;
        r.poison += poison[lane];
    }
    return r;
}

DS_INLINE range join(range a, range b) {
    return (range){a.low < b.low ? a.low : b.low, a.high > b.high ? a.high : b.high, a.poison + b.poison};
}

static const range nothing = {__builtin_inff(), -__builtin_inff(), 0};

/* Halves first: the whole range of f32 may be more than f32 holds. */
static params params_of(const job *job, range r) {
    if (r.low > r.high) r = (range){0, 0, r.poison}; /* no elements */
    float half, offset = 0;
    if (job->symmetric) {
        half = -r.low > r.high ? -r.low : r.high;
    } else {
        half = 0.5f * r.high - 0.5f * r.low;
        offset = 0.5f * r.high + 0.5f * r.low + 0.0f; /* never -0 */
    }
    float scale = half == 0 ? 1 : job->levels / half;
    return (params){scale + r.poison, 1 / scale + r.poison, offset + r.poison};
}

static void plan_groups(int64_t groups, int64_t length, ds_plan *out) {
    int64_t chunks = chunks_of(length);
    out->phases = 1;
    out->phase[0].items = groups * chunks;
    out->phase[0].grain = ds_max(1, WORTH_A_THREAD / ds_max(1, length));
    if (chunks == 1) return;
    out->phases = 3;
    out->phase[1].items = groups;
    out->phase[1].grain = 64;
    out->phase[2] = out->phase[0];
    out->workspace_bytes = groups * (chunks * (int64_t)sizeof(range) + (int64_t)sizeof(params));
}

/* The range of [begin, end) of a group; the last block's values stay in the buffer. */
static range find_range(const job *job, int64_t group, int64_t begin, int64_t end, float *values) {
    range r = nothing;
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        const void *next = job->gather(job, group, at, n, values);
        r = join(r, range_of(values, n, next));
    }
    return r;
}

static void finish_range(const job *job, int64_t group, int64_t begin, int64_t end, float *values, params p) {
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        job->gather(job, group, at, n, values);
        job->finish(job, group, at, n, values, p);
    }
}

/* Does a phase's items; `to`, where there is one, receives the parameters of group `place(group)`. */
static void run_groups(const job *job, float *to, int64_t (*place)(const struct job *, int64_t), uint32_t phase,
                       int64_t begin, int64_t end) {
    float values[BLOCK + PAD];
    int64_t chunks = chunks_of(job->length);
    range *ranges = job->call->workspace;
    params *shared = (params *)(ranges + job->groups * chunks);
    for (int64_t item = begin; item < end; item++) {
        int64_t group = phase == 1 ? item : item / chunks, at = item % chunks * CHUNK;
        int64_t stop = ds_min(at + CHUNK, job->length);
        if (chunks > 1 && phase == 0) {
            ranges[item] = find_range(job, group, at, stop, values);
        } else if (chunks > 1 && phase == 2) {
            finish_range(job, group, at, stop, values, shared[group]);
        } else {
            range r = nothing;
            if (phase == 0) r = find_range(job, group, 0, job->length, values);
            else for (int64_t i = 0; i < chunks; i++) r = join(r, ranges[group * chunks + i]);
            params p = params_of(job, r);
            if (to) keep(to, place(job, group), p);
            if (phase == 1) shared[group] = p;
            else if (job->length > BLOCK) finish_range(job, group, 0, job->length, values, p);
            else if (job->length > 0) job->finish(job, group, 0, job->length, values, p);
        }
    }
}

#endif
