/* Where the tokens of a ragged batch lie in a cache of blocks: token t of a sequence in place t % K of the
 * block that its row of the table names for t / K. What is told of them comes from memory of the device, so
 * nothing of it is followed before it is held against the extents.
 */
#ifndef DS_PAGES_H
#define DS_PAGES_H

#include "ds_cpu_simd.h"

/* cache [B, K, 2, G, D], q_starts [N + 1], seen [N], blocks [N, P]: keys, then values of each token. */
typedef struct pages {
    const ds_tensor *cache, *starts, *seen, *blocks;
    int64_t sequences, each; /* tokens of a block */
    int64_t most;            /* tokens of a sequence */
} pages;

/* `starts` is the argument that tells of the sequences, with `seen` and `blocks` behind it. */
DS_INLINE pages pages_of(const ds_call *call, uint32_t cache, uint32_t starts) {
    pages p = {.cache = ds_arg_tensor(call, cache, 0),
               .starts = ds_arg_tensor(call, starts, 0),
               .seen = ds_arg_tensor(call, starts + 1, 0),
               .blocks = ds_arg_tensor(call, starts + 2, 0)};
    p.sequences = p.blocks->shape[0];
    p.each = p.cache->shape[1];
    p.most = p.each * p.blocks->shape[1];
    return p;
}

/* Whether starts are not one more than the sequences, descend, or leave the `tokens` of the batch. */
DS_INLINE int pages_are_wrong(const ds_tensor *starts, int64_t sequences, int64_t tokens) {
    int64_t before = 0;
    if (starts->shape[0] != sequences + 1) return 1;
    for (int64_t n = 0; n <= sequences; n++) {
        int64_t start = ds_index_at(starts, n);
        if (start < before || start > tokens) return 1;
        before = start;
    }
    return 0;
}

/* Tokens that sequence `n` has with `more`; -1 where its row of the table has no room for them, or what it
 * has seen is negative. */
DS_INLINE int64_t pages_tokens(const pages *p, int64_t n, int64_t more) {
    int64_t seen = ds_index_at(p->seen, n);
    return seen < 0 || seen > p->most - more ? -1 : seen + more;
}

/* The first place of block `block` of sequence `n`; NULL where there is no such block. */
DS_INLINE void *pages_block(const pages *p, int64_t n, int64_t block) {
    int64_t number = block < p->blocks->shape[1] ? ds_index_at(p->blocks, n * p->blocks->shape[1] + block) : -1;
    if (number < 0 || number >= p->cache->shape[0]) return 0;
    return ds_at(p->cache->data, number * p->cache->strides[0], p->cache->dtype);
}

/* A sequence, or what lies beside all of them. */
typedef struct pages_sequence {
    int64_t index; /* -1 for padding */
    int64_t first, end;
} pages_sequence;

/* What has token `token`, which is in what `before` is or behind it; the first of them begins with index -1
 * and end 0. Starts must not be wrong. */
DS_INLINE pages_sequence pages_next(const ds_tensor *starts, pages_sequence before, int64_t token) {
    int64_t n = ds_max(0, before.index), sequences = starts->shape[0] - 1;
    if (token < before.end) return before;
    if (token < ds_index_at(starts, 0)) return (pages_sequence){-1, 0, ds_index_at(starts, 0)};
    while (n < sequences && token >= ds_index_at(starts, n + 1)) n++;
    if (n == sequences) return (pages_sequence){-1, 0, INT64_MAX};
    return (pages_sequence){n, ds_index_at(starts, n), ds_index_at(starts, n + 1)};
}

#endif
