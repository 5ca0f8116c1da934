/* Attention of the Evoformer, on a CPU: a bias of keys for each sequence, and one of pairs for each head that
 * all sequences of a batch share.
 *
 * Limit: multiply-add instructions, 4 d flops a score, and for short heads the exponentials. The bias of pairs
 * is read again for every sequence; it lies in the cache.
 */
#include "biased.h"

/* evoformer_attn(q, k, v, bias1, bias2, scale) -> (o, lse); an item is a panel of queries of a head. */
enum { Q, K, V, BIAS1, BIAS2, O, LSE };

enum { CHUNK_FLOPS = 1 << 21 };

static void plan(const ds_call *call, ds_plan *out) {
    const extents e = extents_of(call, Q, K);
    const int64_t width = ds_panel_vectors(e.queries) * DS_LANES;
    out->phases = 1;
    out->phase[0].items = e.batch * e.n * e.heads * ds_div_up(e.queries, width);
    out->phase[0].grain = ds_max(1, CHUNK_FLOPS / (4 * width * ds_max(8, e.d) * ds_max(1, e.keys)));
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const extents e = extents_of(call, Q, K);
    const int vectors = ds_panel_vectors(e.queries);
    const int64_t width = vectors * DS_LANES, panels = ds_div_up(e.queries, width);
    float *lse = ds_arg_tensor(call, LSE, 0)->data;
    ds_biased p;
    for (int64_t item = begin; item < end; item++) {
        const int64_t first = item % panels * width, head = item / panels, sequence = head / e.heads;
        const place at = {sequence / e.n, sequence % e.n, head % e.heads};
        const ds_attention of = attention_of(call, &e, Q, BIAS1, at);
        const ds_head o = head_of(call, O, at);
        ds_biased_begin(&p, &of, first, ds_min(width, e.queries - first), vectors);
        ds_biased_to(&p, 0, e.keys);
        ds_biased_end(&p, &o, lse + first_lse(&e, at) + first);
    }
}

DS_KERNEL(ds_evoformer_attn, plan, run);
