/* Gradients of block-sparse attention, on a CPU: weights come again from the logarithms that the forward pass
 * left, block column after block column.
 *
 * Limit: multiply-add instructions, 10 d flops for each query and key of a block that is seen.
 *
 * Gradients of the queries are added up in memory. Who adds to a row are the columns of one item, in their
 * order; where sequences and heads are few, columns are dealt to several items, each with sums of its own.
 */
#include "blocks.h"
#include "ds_cpu_biased_backward.h"

/* sparse_attn_backward(do, q, k, v, o, lse, layout, key_padding_mask, attn_mask, scale, causal) -> (dq, dk, dv).
 *
 * Phase 0: an item is a token; its heads' sums of do * o. Phase 1: an item is a share of the columns of a head.
 * Phase 2: an item is a token; the sums of its gradients become numbers of T. */
enum { DO, Q, K, V, O, LSE, LAYOUT, KEY_PADDING_MASK, ATTN_MASK, DQ, DK, DV };

enum {
    ENOUGH_ITEMS = 16, /* below that columns are dealt to several, */
    MOST_SHARES = 8,   /* at most to so many */
    CHUNK_ELEMENTS = 1 << 14,
};

typedef struct work {
    extents e;
    int64_t shares;
    int64_t rows, sums; /* rows of all heads, numbers in a row of sums */
    float *dots, *dq;   /* for each row: sum(do * o); for each share and row: sums */
} work;

static work work_of(const ds_call *call) {
    work w = {.e = extents_of(call, Q, LAYOUT)};
    w.shares = ds_min(MOST_SHARES, ds_div_up(ENOUGH_ITEMS, ds_max(1, w.e.batch * w.e.heads)));
    w.shares = ds_max(1, ds_min(w.shares, w.e.blocks));
    w.rows = w.e.batch * w.e.heads * w.e.tokens;
    w.sums = ds_padded(w.e.d);
    if (!call->workspace) return w; /* in `plan` */
    w.dots = call->workspace;
    w.dq = w.dots + ds_div_up(w.rows, DS_LANES) * DS_LANES;
    return w;
}

static void plan(const ds_call *call, ds_plan *out) {
    const work w = work_of(call);
    out->phases = 3;
    out->phase[0].items = out->phase[2].items = w.e.batch * w.e.tokens;
    out->phase[0].grain = out->phase[2].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, w.e.heads * w.e.d));
    out->phase[1].items = w.e.batch * w.e.heads * w.shares;
    out->phase[1].grain = 1;
    out->workspace_bytes = (ds_div_up(w.rows, DS_LANES) * DS_LANES + w.shares * w.rows * w.sums) * 4;
}

/* The keys of a block, a panel at a time. */
static void run_column(ds_biased_gradient *p, const ds_call *call, const work *w, const ds_gradients *from, int64_t b, int64_t h,
                       int64_t column) {
    const extents *e = &w->e;
    const ds_tensor *layout = ds_arg_tensor(call, LAYOUT, 0);
    const ds_attention of = attention_of(call, e, Q, KEY_PADDING_MASK, b, h);
    const ds_head dk = head_of(call, DK, b, h), dv = head_of(call, DV, b, h);
    const int vectors = ds_panel_vectors(e->block);
    const tokens keys = tokens_of(e, column);
    for (int64_t at = 0; at < keys.n; at += vectors * DS_LANES) {
        ds_biased_gradient_begin(p, &of, from, keys.first + at, ds_min(vectors * DS_LANES, keys.n - at), vectors);
        for (int64_t row = 0; row < e->blocks; row++) {
            const tokens queries = tokens_of(e, row);
            if (is_seen(e, layout, h, row, column)) ds_biased_gradient_to(p, queries.first, queries.n);
        }
        ds_biased_gradient_end(p, &dk, &dv);
    }
}

static void run_share(ds_biased_gradient *p, const ds_call *call, const work *w, int64_t item) {
    const extents *e = &w->e;
    const int64_t share = item % w->shares, head = item / w->shares, b = head / e->heads, h = head % e->heads;
    const ds_gradients from = {
        .d_o = head_of(call, DO, b, h),
        .lse = (const float *)ds_arg_tensor(call, LSE, 0)->data + head * e->tokens,
        .dots = w->dots + head * e->tokens,
        .dq = w->dq + (share * w->rows + head * e->tokens) * w->sums,
    };
    __builtin_memset(from.dq, 0, (size_t)(e->tokens * w->sums) * 4);
    for (int64_t column = share; column < e->blocks; column += w->shares) run_column(p, call, w, &from, b, h, column);
}

/* The sums of shares, in their order. */
static void put_query(const ds_call *call, const work *w, int64_t b, int64_t h, int64_t token) {
    const ds_head to = head_of(call, DQ, b, h);
    const float *sum = w->dq + ((b * w->e.heads + h) * w->e.tokens + token) * w->sums;
    _Alignas(64) float all[DS_MOST_D];
    for (int64_t c = 0; c < w->sums; c += DS_LANES) {
        ds_vec more = ds_load(sum, c, DS_F32);
        for (int64_t i = 1; i < w->shares; i++) more += ds_load(sum, i * w->rows * w->sums + c, DS_F32);
        ds_store(all, c, more * (float)call->scalars[0].f, DS_F32);
    }
    ds_put_head(ds_token(&to, token), all, w->e.d, to.dtype);
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const work w = work_of(call);
    ds_biased_gradient p;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 1) {
            run_share(&p, call, &w, item);
            continue;
        }
        const int64_t b = item / w.e.tokens, token = item % w.e.tokens;
        for (int64_t h = 0; h < w.e.heads; h++) {
            const ds_head d_o = head_of(call, DO, b, h), o = head_of(call, O, b, h);
            if (phase == 2) put_query(call, &w, b, h, token);
            else
                w.dots[(b * w.e.heads + h) * w.e.tokens + token] =
                    ds_dot(ds_token(&d_o, token), ds_token(&o, token), w.e.d, o.dtype);
        }
    }
}

DS_KERNEL(ds_sparse_attn_backward, plan, run);
