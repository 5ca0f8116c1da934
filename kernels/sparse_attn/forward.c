/* Block-sparse attention, on a CPU: what the layout leaves out costs nothing but a look at it.
 *
 * Limit: multiply-add instructions, 4 d flops for each query and key of a block that is seen. Blocks that a
 * panel sees come near one behind the other, wherever they lie, so that small ones make whole tiles.
 */
#include "blocks.h"

/* sparse_attn(q, k, v, layout, key_padding_mask, attn_mask, scale, causal) -> (o, lse); an item is a block of
 * queries of a head. */
enum { Q, K, V, LAYOUT, KEY_PADDING_MASK, ATTN_MASK, O, LSE };

static void plan(const ds_call *call, ds_plan *out) {
    const extents e = extents_of(call, Q, LAYOUT);
    enum { ROWS = 32 /* of full density; nobody knows how many are seen */ };
    out->phases = 1;
    out->phase[0].items = e.batch * e.heads * e.blocks;
    out->phase[0].grain = ds_max(1, ROWS / ds_max(1, e.block));
}

static void run_block(ds_biased *p, const ds_call *call, const extents *e, int64_t b, int64_t h, int64_t row) {
    const ds_tensor *layout = ds_arg_tensor(call, LAYOUT, 0);
    float *lse = (float *)ds_arg_tensor(call, LSE, 0)->data + (b * e->heads + h) * e->tokens;
    const ds_attention of = attention_of(call, e, Q, KEY_PADDING_MASK, b, h);
    const ds_head o = head_of(call, O, b, h);
    const int vectors = ds_panel_vectors(e->block);
    const tokens queries = tokens_of(e, row);
    for (int64_t at = 0; at < queries.n; at += vectors * DS_LANES) {
        ds_biased_begin(p, &of, queries.first + at, ds_min(vectors * DS_LANES, queries.n - at), vectors);
        for (int64_t column = 0; column < e->blocks; column++) {
            const tokens keys = tokens_of(e, column);
            if (is_seen(e, layout, h, row, column)) ds_biased_to(p, keys.first, keys.n);
        }
        ds_biased_end(p, &o, lse + queries.first + at);
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const extents e = extents_of(call, Q, LAYOUT);
    ds_biased p;
    for (int64_t item = begin; item < end; item++) {
        const int64_t head = item / e.blocks;
        run_block(&p, call, &e, head / e.heads, head % e.heads, item % e.blocks);
    }
}

DS_KERNEL(ds_sparse_attn, plan, run);
