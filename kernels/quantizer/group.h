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

/* Values of a group on their way, and what is gathered next, to be fetched meanwhile: half of it while
 * their range is found, half while they are quantised. */
typedef struct {
    _Alignas(64) float values[BLOCK + PAD]; /* a vector astride two lines takes twice as long */
    const char *next; /* NULL where that is not known */
    int64_t size;     /* bytes of an element there */
} block;

typedef struct job {
    int64_t groups, length; /* elements of a group */
    float levels;           /* 2^(bits - 1) */
    int symmetric;
    const ds_call *call;
    /* Values [at, at + n) of a group, and their range. */
    range (*gather)(const struct job *job, int64_t group, int64_t at, int64_t n, block *to);
    void (*finish)(const struct job *job, int64_t group, int64_t at, int64_t n, const block *from, params p);
} job;

/* Where a group's parameters go: step and offset. */
DS_INLINE void keep(float *to, int64_t group, params p) {
    to[2 * group] = p.step;
    to[2 * group + 1] = p.offset;
}

/* Fetches a share of half `which` of what comes next, at pair `i` of a block of `n`. */
DS_INLINE void fetch_next(const block *from, int64_t n, int64_t i, int which) {
    if (from->next) __builtin_prefetch(from->next + (which * n + i) * from->size / 2, 0, 3);
}

/* Four sums of each kind: one would wait for itself. */
typedef struct {
    ds_vec low[4], high[4], poison[4];
} ranges_of_four;

DS_INLINE void begin_ranges(ranges_of_four *r) {
    for (int k = 0; k < 4; k++) {
        r->low[k] = ds_splat(__builtin_inff());
        r->high[k] = -r->low[k];
        r->poison[k] = ds_splat(0);
    }
}

/* Adds the `k`th vector of a quad. */
DS_INLINE void add_range(ranges_of_four *r, int k, ds_vec v) {
    r->low[k] = ds_vmin(r->low[k], v);
    r->high[k] = ds_vmax(r->high[k], v);
    r->poison[k] = ds_vfma(v, ds_splat(0), r->poison[k]);
}

static range end_ranges(const ranges_of_four *r) {
    ds_vec low = ds_vmin(ds_vmin(r->low[0], r->low[1]), ds_vmin(r->low[2], r->low[3]));
    ds_vec high = ds_vmax(ds_vmax(r->high[0], r->high[1]), ds_vmax(r->high[2], r->high[3]));
    ds_vec poison = r->poison[0] + r->poison[1] + r->poison[2] + r->poison[3];
    return (range){-ds_greatest_lane(-low), ds_greatest_lane(high), (float)ds_vsum(poison)};
}

/* The range of values of a block from `i` on, behind the last of which there is room. */
static void range_from(block *from, int64_t i, int64_t n, ranges_of_four *r) {
    for (int64_t end = n; end % QUAD; end++) from->values[end] = from->values[0];
    for (; i < n; i += QUAD)
        for (int k = 0; k < 4; k++) add_range(r, k, ds_load(from->values, i + k * DS_LANES, DS_F32));
}

static __attribute__((unused)) range range_of(block *from, int64_t n) {
    ranges_of_four r;
    begin_ranges(&r);
    range_from(from, 0, n, &r);
    return end_ranges(&r);
}

/* Elements from `at` on as values, and their range. The dtype is asked for each quad: memory hides it. */
static __attribute__((unused)) range read_block(const ds_tensor *x, int64_t at, int64_t n, block *to) {
    const uint32_t dtype = x->dtype;
    ranges_of_four r;
    begin_ranges(&r);
    to->size = ds_size(dtype);
    to->next = ds_at(x->data, at + n, dtype);
    int64_t i = 0;
    for (; i + QUAD <= n; i += QUAD) {
        ds_vec v[4] = {{0}};
        fetch_next(to, n, i, 0);
        fetch_next(to, n, i + QUAD / 2, 0);
        DS_WITH_FLOAT(t, dtype, for (int k = 0; k < 4; k++) v[k] = ds_load(x->data, at + i + k * DS_LANES, t));
        for (int k = 0; k < 4; k++) {
            ds_store(to->values, i + k * DS_LANES, v[k], DS_F32);
            add_range(&r, k, v[k]);
        }
    }
    if (i < n) {
        DS_WITH_FLOAT(t, dtype, read_values(x->data, at + i, n - i, to->values + i, t));
        range_from(to, i, n, &r);
    }
    return end_ranges(&r);
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

/* Does a phase's items; `to`, where there is one, receives the parameters of group `place(group)`. */
static void run_groups(const job *job, float *to, int64_t (*place)(const struct job *, int64_t), uint32_t phase,
                       int64_t begin, int64_t end) {
    block buffer;
    int64_t chunks = chunks_of(job->length);
    range *ranges = job->call->workspace;
    params *shared = (params *)(ranges + job->groups * chunks);
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
            else if (job->length > BLOCK) finish_range(job, group, 0, job->length, &buffer, p);
            else if (job->length > 0) job->finish(job, group, 0, job->length, &buffer, p);
        }
    }
}

#endif
