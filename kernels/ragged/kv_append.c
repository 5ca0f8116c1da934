/* Keys and values of a ragged batch into a cache of blocks, keys and queries turned on the way, on a CPU.
 *
 * Limit: memory. Keys and values are read and written once; queries, too, where there are angles.
 */
#include "ds_cpu_rope.h"
#include "pages.h"

/* kv_append(qkv, cache, q_starts, seen, blocks, cos, sin, interleaved); an item is a token. */
enum { QKV, CACHE, STARTS, SEEN, BLOCKS, COS, SIN };

static void plan(const ds_call *call, ds_plan *out) {
    const int64_t *shape = ds_arg_tensor(call, QKV, 0)->shape;
    out->phases = 1;
    out->phase[0].items = shape[0];
    out->phase[0].grain = ds_max(1, DS_CHUNK_ELEMENTS / ds_max(1, shape[1] * shape[2]));
}

/* Head `head` of token `token`. */
DS_INLINE void *head_at(const ds_tensor *t, int64_t token, int64_t head) {
    return ds_at(t->data, token * t->strides[0] + head * t->strides[1], t->dtype);
}

/* The place of a token at `position` of sequence `n`; NULL where it has none. */
static void *place_of(const pages *p, int64_t n, int64_t position) {
    if (position < 0 || position >= p->most) return 0;
    char *block = pages_block(p, n, position / p->each);
    return block ? ds_at(block, position % p->each * p->cache->strides[1], p->cache->dtype) : 0;
}

/* The queries of a token that has no place become NaN. */
DS_INLINE void spoil(const ds_tensor *qkv, int64_t token, int64_t queries, uint32_t t) {
    const int64_t d = qkv->shape[2];
    for (int64_t head = 0; head < queries; head++)
        for (int64_t i = 0; i < d; i += DS_LANES)
            ds_store_first(d - i, head_at(qkv, token, head), i, ds_splat(__builtin_nanf("")), t);
}

/* Writes keys and values of a token to `place`, and turns its queries; without angles nothing is turned. */
DS_INLINE void append(const ds_call *call, const ds_tensor *cache, void *place, int64_t token, const ds_angles *by,
                      uint32_t t) {
    const ds_tensor *qkv = ds_arg_tensor(call, QKV, 0);
    const int64_t d = qkv->shape[2], groups = cache->shape[3], queries = qkv->shape[1] - 2 * groups;
    const int64_t *strides = cache->strides;
    const int interleaved = call->attributes[0].i != 0;
    for (int64_t head = 0; by->cos && head < queries; head++) {
        void *own = head_at(qkv, token, head);
        ds_rope_turn_head(own, own, by, d, t, interleaved, 0);
    }
    for (int64_t group = 0; group < groups; group++) {
        const void *k = head_at(qkv, token, queries + group), *v = head_at(qkv, token, queries + groups + group);
        void *key = ds_at(place, group * strides[3], t), *value = ds_at(key, strides[2], t);
        if (by->cos) ds_rope_turn_head(key, k, by, d, t, interleaved, 0);
        else __builtin_memcpy(key, k, (size_t)(d * ds_size(t)));
        __builtin_memcpy(value, v, (size_t)(d * ds_size(t)));
    }
}

DS_INLINE void run(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *qkv = ds_arg_tensor(call, QKV, 0);
    const pages at = pages_of(call, CACHE, STARTS);
    const int64_t queries = qkv->shape[1] - 2 * at.cache->shape[3];
    const float *cos = ds_optional(call, COS), *sin = ds_optional(call, SIN);
    const int is_turned = call->args[COS].count && call->args[SIN].count;
    const int are_wrong = queries < 0 || pages_are_wrong(at.starts, at.sequences, qkv->shape[0]);
    const int64_t *table = is_turned ? ds_arg_tensor(call, COS, 0)->shape : 0;
    pages_sequence s = {-1, 0, 0};
    for (int64_t token = begin; token < end; token++) {
        if (!are_wrong) {
            s = pages_next(at.starts, s, token);
            if (s.index < 0) continue;
        }
        int64_t seen = are_wrong ? -1 : ds_index_at(at.seen, s.index);
        int64_t position = seen < 0 || seen > at.most ? -1 : seen + token - s.first;
        void *place = place_of(&at, s.index, position);
        if (!place || (is_turned && position >= table[0])) {
            spoil(qkv, token, queries, t);
            continue;
        }
        ds_angles by = {.sign = 1};
        if (is_turned) {
            by.points = ds_min(table[1], qkv->shape[2] / 2);
            by.cos = cos + position * table[1];
            by.sin = sin + position * table[1];
        }
        append(call, at.cache, place, token, &by, t);
    }
}

static void run_any(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, QKV, 0)->dtype, run(call, begin, end, t));
}

DS_KERNEL(ds_kv_append, plan, run_any);
