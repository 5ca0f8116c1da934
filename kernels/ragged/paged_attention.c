/* Attention over a cache of blocks, on a CPU: as ds_cpu_flash.h has it, with keys and values gathered from
 * where the table of blocks says. It is they that bound a step of generation: each is read once.
 */
#include "ds_cpu_flash.h"
#include "pages.h"

/* paged_attention(q, cache, q_starts, seen, blocks, alibi, scale, ...) -> o. */
enum { CACHE = Q + 1, STARTS, SEEN, BLOCKS, ALIBI, O };

/* The starts, and of each sequence its tokens as `pages_tokens` has them. */
static int copy_pages(int64_t *to, const ds_call *call, const geometry *g, int starts) {
    const pages at = pages_of(call, CACHE, (uint32_t)starts);
    if (g->starts != at.sequences + 1 || copy_starts(to, at.starts, g->starts, g->queries)) return 1;
    for (int64_t n = 0; n < at.sequences; n++) to[g->starts + n] = pages_tokens(&at, n, to[n + 1] - to[n]);
    return 0;
}

static sequence paged_sequence(const int64_t *table, const geometry *g, int64_t n) {
    const int64_t *q = table + starts_at(g), *tokens_of_each = q + g->starts;
    sequence s = {.queries = g->queries, .is_wrong = (int)table[TABLE_WRONG]};
    if (s.is_wrong) return s;
    s.first_query = n > 0 ? q[n - 1] : 0;
    s.queries = (n < g->starts ? q[n] : g->queries) - s.first_query;
    if (n == 0 || n == g->starts) return s; /* padding */
    s.batch = n - 1;
    s.is_wrong = tokens_of_each[s.batch] < 0;
    s.keys = s.is_wrong || !g->keys ? 0 : tokens_of_each[s.batch];
    return s;
}

static geometry geometry_of_pages(const ds_call *call) {
    geometry g = geometry_of(call, Q, CACHE, STARTS);
    const pages at = pages_of(call, CACHE, STARTS);
    g.all_keys = at.most;
    if (g.keys) g.keys = at.most;
    g.copy = copy_pages;
    g.packed = paged_sequence;
    return g;
}

/* A key that is not there is NaN in every dtype, and its value zero: whoever sees it becomes NaN, others do
 * not. */
static const uint32_t NANS[DS_MOST_D] = {[0 ... DS_MOST_D - 1] = 0x7fc07fc0}, ZEROS[DS_MOST_D];

static void keys_in_blocks(ds_heads *keys, ds_heads *values, const panel *p, const ds_call *call, int64_t first, int64_t n) {
    const pages at = pages_of(call, CACHE, STARTS);
    const int64_t *strides = at.cache->strides;
    const uint32_t t = at.cache->dtype;
    int64_t block = first / at.each, place = first % at.each;
    const char *from = 0;
    for (int64_t i = 0; i < n + DS_ROWS_AHEAD; i++) {
        if (i == 0 || place == at.each) {
            if (i > 0) block++, place = 0;
            from = pages_block(&at, p->s.batch, block);
        }
        int64_t offset = place++ * strides[1] + p->group * strides[3];
        keys->at[i] = from ? ds_at(from, offset, t) : NANS;
        values->at[i] = from ? ds_at(from, offset + strides[2], t) : ZEROS;
    }
}

static const layout PAGED = {STARTS, ALIBI, O, -1, geometry_of_pages, keys_in_blocks, 1};

KERNEL(ds_paged_attention, PAGED);
