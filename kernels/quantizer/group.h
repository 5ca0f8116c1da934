/* Quantisation of groups: what the kernels of this folder share.
 *
 * A kernel gives what `job` asks for: how to find the range of values of a group, and how to finish them
 * once the group's parameters are known. What is read twice is in the first level of the caches by then:
 * elements as they are, or where they are sums, a buffer of f32. What comes next is fetched meanwhile,
 * half of it while the range is found, half while the group before is quantised. A group longer than a
 * chunk is shared among threads: ranges of chunks, then parameters, then the chunks again.
 */
#ifndef DS_QUANTIZER_GROUP_H
#define DS_QUANTIZER_GROUP_H

#include "range.h"

typedef struct {
    _Alignas(64) float values[BLOCK + PAD]; /* a vector astride two lines takes twice as long */
} block;

/* Puts a quad of values into a buffer, of which `n` are some, and adds it to their range. */
DS_INLINE ranges_of_four keep_quad(block *to, int64_t i, int64_t n, quad v, ranges_of_four r) {
    float *place = to->values + i;
    ds_store(place, 0, v.a, DS_F32);
    ds_store(place, DS_LANES, v.b, DS_F32);
    ds_store(place, 2 * DS_LANES, v.c, DS_F32);
    ds_store(place, 3 * DS_LANES, v.d, DS_F32);
    if (i + QUAD > n) {
        repeat_first(place, n - i);
        v = load_quad(place, DS_F32);
    }
    return add_range(r, v);
}

typedef struct job {
    int64_t groups, length; /* elements of a group */
    float levels;           /* 2^(bits - 1) */
    int symmetric;
    const ds_call *call;
    /* The range of values [at, at + n) of a group, and what `finish` will want of them. */
    range (*gather)(const struct job *job, int64_t group, int64_t at, int64_t n, block *to);
    void (*finish)(const struct job *job, int64_t group, int64_t at, int64_t n, const block *from, params p);
} job;

/* Where a group's parameters go: step and offset. */
DS_INLINE void keep(float *to, int64_t group, params p) {
    to[2 * group] = p.step;
    to[2 * group + 1] = p.offset;
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
static range find_range(const job *job, int64_t group, int64_t begin, int64_t end, block *buffer) {
    range r = nothing;
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        r = join(r, job->gather(job, group, at, n, buffer));
    }
    return r;
}

static void finish_range(const job *job, int64_t group, int64_t begin, int64_t end, block *buffer, params p) {
    for (int64_t at = begin; at < end; at += BLOCK) {
        int64_t n = ds_min(BLOCK, end - at);
        job->gather(job, group, at, n, buffer);
        job->finish(job, group, at, n, buffer, p);
    }
}

/* Groups that a buffer holds. The range of the next one is found before a group is finished, so that
 * nothing waits for the divisions between the two. */
static void run_short_groups(const job *job, float *to, int64_t (*place)(const struct job *, int64_t), int64_t begin,
                             int64_t end) {
    block buffers[2];
    range next = nothing;
    for (int64_t group = begin - 1; group < end; group++) {
        params p = params_of(job, next);
        if (group + 1 < end) next = find_range(job, group + 1, 0, job->length, &buffers[(group + 1) & 1]);
        if (group < begin) continue;
        if (to) keep(to, place(job, group), p);
        if (job->length > 0) job->finish(job, group, 0, job->length, &buffers[group & 1], p);
    }
}

/* Does a phase's items; `to`, where there is one, receives the parameters of group `place(group)`. */
static void run_groups(const job *job, float *to, int64_t (*place)(const struct job *, int64_t), uint32_t phase,
                       int64_t begin, int64_t end) {
    block buffer;
    int64_t chunks = chunks_of(job->length);
    range *ranges = job->call->workspace;
    params *shared = (params *)(ranges + job->groups * chunks);
    if (job->length <= BLOCK) {
        run_short_groups(job, to, place, begin, end);
        return;
    }
    for (int64_t item = begin; item < end; item++) {
        int64_t group = phase == 1 ? item : item / chunks, at = item % chunks * CHUNK;
        int64_t stop = ds_min(at + CHUNK, job->length);
        if (chunks > 1 && phase == 0) {
            ranges[item] = find_range(job, group, at, stop, &buffer);
        } else if (chunks > 1 && phase == 2) {
            finish_range(job, group, at, stop, &buffer, shared[group]);
        } else {
            range r = nothing;
            if (phase == 0) r = find_range(job, group, 0, job->length, &buffer);
            else for (int64_t i = 0; i < chunks; i++) r = join(r, ranges[group * chunks + i]);
            params p = params_of(job, r);
            if (to) keep(to, place(job, group), p);
            if (phase == 1) shared[group] = p;
            else finish_range(job, group, 0, job->length, &buffer, p);
        }
    }
}

#endif
