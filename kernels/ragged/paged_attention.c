/* Attention over a cache of blocks, on a CPU: as ds_cpu_attend.h has it, with keys and values gathered from
 * where the table of blocks says. It is they that bound a step of generation: each is read once.
 */
#include "ds_cpu_attend.h"
#include "pages.h"

/* paged_attention(q, cache, q_starts, seen, blocks, alibi, scale, ...) -> o. */
enum { CACHE = Q + 1, STARTS, SEEN, BLOCKS, ALIBI, O };

enum { AHEAD = 8 /* keys that are fetched: the processor does not foresee blocks */ };

static sequence paged_sequence(const ds_call *call, const geometry *g, int starts, int64_t n) {
    const pages at = pages_of(call, CACHE, (uint32_t)starts);
    sequence s = {.queries = g->queries, .is_wrong = (int)((const int64_t *)call->workspace)[TABLE_WRONG]};
    if (s.is_wrong) return s;
    s.first_query = n > 0 ? ds_index_at(at.starts, n - 1) : 0;
    s.queries = (n < g->starts ? ds_index_at(at.starts, n) : g->queries) - s.first_query;
    if (n == 0 || n == g->starts) return s; /* tokens of no sequence */
    s.batch = n - 1;
    s.keys = pages_tokens(&at, s.batch, s.queries);
    s.is_wrong = s.keys < 0;
    if (s.is_wrong || !g->keys) s.keys = 0;
    return s;
}

static int pages_are_none(const ds_call *call, const geometry *g, int starts) {
    const pages at = pages_of(call, CACHE, (uint32_t)starts);
    return pages_are_wrong(at.starts, at.sequences, g->queries);
}

static geometry geometry_of_pages(const ds_call *call) {
    geometry g = geometry_of(call, Q, CACHE, STARTS);
    const pages at = pages_of(call, CACHE, STARTS);
    g.all_keys = at.most;
    if (g.keys) g.keys = at.most;
    g.packed = paged_sequence;
    g.are_wrong = pages_are_none;
    return g;
}

DS_INLINE void gather_of(float *to, const void *const *rows, int64_t n, int64_t d, float none, uint32_t t) {
    const int64_t stride = padded(d), whole = d / DS_LANES * DS_LANES;
    for (int64_t i = 0; i < n; i++) {
        const void *row = rows[i];
        for (int64_t c = 0; c < d; c += 64 / ds_size(t)) __builtin_prefetch(ds_at(rows[i + AHEAD], c, t), 0, 3);
        for (int64_t c = 0; c < whole; c += DS_LANES)
            ds_store(to, i * stride + c, row ? ds_load(row, c, t) : ds_splat(none), DS_F32);
        if (whole == stride) continue;
        ds_vec last = row ? ds_load_first(d - whole, row, whole, t) : ds_splat(none);
        ds_store(to, i * stride + whole, last, DS_F32);
    }
}

/* Copies the heads of `rows` side by side in f32, zeros behind each, and `none` for one that is not there. */
OUT_OF_LINE void gather(float *to, const void *const *rows, int64_t n, int64_t d, float none, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, gather_of(to, rows, n, d, none, t));
}

/* A key that is not there is NaN, and its value zero: whoever sees it becomes NaN, others do not. */
static void bring_pages(panel *p, const ds_call *call, const geometry *g, int64_t first, int64_t n) {
    const pages at = pages_of(call, CACHE, STARTS);
    const int64_t *strides = at.cache->strides;
    const uint32_t t = at.cache->dtype;
    const void *keys[BLOCK + AHEAD], *values[BLOCK + AHEAD];
    int64_t block = first / at.each, place = first % at.each;
    const char *from = 0;
    for (int64_t i = 0; i < n + AHEAD; i++) {
        if (i == 0 || place == at.each) {
            if (i > 0) block++, place = 0;
            from = pages_block(&at, p->s.batch, block);
        }
        int64_t offset = place++ * strides[1] + p->group * strides[3];
        keys[i] = from ? ds_at(from, offset, t) : 0;
        values[i] = from ? ds_at(from, offset + strides[2], t) : 0;
    }
    gather(p->k, keys, n, g->d, __builtin_nanf(""), t);
    gather(p->v, values, n, g->d, 0, t);
}

static const layout PAGED = {STARTS, ALIBI, O, -1, geometry_of_pages, bring_pages, 1};

KERNEL(ds_paged_attention, PAGED);
