/* Gradients of attention, on a CPU (Dao 2023, arXiv 2307.08691): weights come again from the logarithms
 * that the forward pass left.
 *
 * Limit: multiply-add instructions, 10 d flops for each key that a query sees, of five products.
 *
 * Keys lie on the lanes of vectors: a panel of them keeps the gradients of its keys and values until all
 * rows that see it have passed, a row being a query of a head. Gradients of the queries are added up in
 * memory, panel after panel, so that each product is computed once; who adds to a row are the panels of
 * one item, in their order. Where sequences and heads are few, panels are dealt to several items, each
 * with sums of its own.
 */
#include "attention.h"

/* flash_attn_backward(do, q, k, v, o, lse, alibi, scale, ...) -> (dq, dk, dv) and
 * flash_attn_varlen_backward(do, q, k, v, o, lse, q_starts, kv_starts, alibi, scale, ...) -> (dq, dk, dv).
 *
 * Phase 0: the table of packed sequences, of one place each. Phase 1: an item is a query; its heads' sums
 * of do * o. Phase 2: an item is a share of the panels of a head of keys of a sequence. Phase 3: an item
 * is a query; the sums of its gradients become numbers of T. */
enum { DO, Q, K, V, O, LSE };

typedef struct layout {
    int starts, alibi, dq, dk, dv; /* arguments */
} layout;
static const layout BATCH = {-1, 6, 7, 8, 9}, PACKED = {6, 8, 9, 10, 11};

enum {
    ENOUGH_ITEMS = 16, /* below that the panels of a head are dealt to several, */
    MOST_SHARES = 8,   /* at most to so many */
    CHUNK_ELEMENTS = 1 << 14,
};

typedef struct work {
    geometry g;
    int64_t slots, shares;
    int64_t rows, sums; /* of one share; numbers in each row of sums */
    int64_t first_sum;
    float *dots, *dq; /* for each row: sum(do * o); for each share and row: sums */
} work;

static work work_of(const ds_call *call, const layout *at) {
    work w = {.g = geometry_of(call, Q, K, at->starts)};
    const geometry *g = &w.g;
    w.slots = places(g, 0);
    w.shares = ds_min(MOST_SHARES, ds_div_up(ENOUGH_ITEMS, ds_max(1, w.slots * g->groups)));
    w.shares = ds_max(1, ds_min(w.shares, g->keys / DS_TILE_WIDTH));
    w.rows = g->groups * g->batch * g->queries * g->shared;
    w.sums = ds_padded(g->d);
    w.first_sum = ds_div_up(w.rows, DS_LANES) * DS_LANES;
    if (!call->workspace) return w; /* in `plan` */
    w.dots = ds_at(call->workspace, table_bytes(g), DS_I8);
    w.dq = w.dots + w.first_sum;
    return w;
}

static void plan(const ds_call *call, ds_plan *out, const layout *at) {
    work w = work_of(call, at);
    const int64_t numbers = ds_max(1, w.g.heads * w.g.d);
    out->phases = 4;
    out->phase[0].items = w.g.starts >= 0;
    out->phase[0].grain = 1;
    out->phase[1].items = out->phase[3].items = w.g.batch * w.g.queries;
    out->phase[1].grain = out->phase[3].grain = ds_max(1, CHUNK_ELEMENTS / numbers);
    out->phase[2].items = w.slots * w.g.groups * w.shares;
    out->phase[2].grain = 1;
    out->workspace_bytes = table_bytes(&w.g) + (w.first_sum + w.shares * w.rows * w.sums) * 4;
}

/* A row's number among all: those of a sequence that share a head of keys are neighbours. */
static inline int64_t row_number(const geometry *g, int64_t group, int64_t batch, int64_t query, int64_t of) {
    int64_t shared = first_head(g, group + 1) - first_head(g, group);
    return group * g->batch * g->queries * g->shared + (batch * g->queries + query) * shared + of;
}

/* What is near of an item. */
typedef struct near {
    sequence s;
    int64_t group, head, shared; /* heads of queries: the first, and how many */
    float scale;
    const float *slopes;
    _Alignas(64) float keys[DS_TILE_WIDTH * DS_MOST_D];              /* as rows, */
    _Alignas(64) float k[DS_MOST_D * DS_TILE_WIDTH];                 /* and as panels; times what makes powers of two */
    _Alignas(64) float v[DS_MOST_D * DS_TILE_WIDTH];
    _Alignas(64) float dk[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float dv[(DS_MOST_D + DS_TILE_SLACK) * DS_TILE_WIDTH];
    _Alignas(64) float q[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];         /* rows */
    _Alignas(64) float d_o[DS_NEAR_ROWS * DS_MOST_D + DS_TILE_SLACK];
    _Alignas(64) float weights[DS_NEAR_ROWS * DS_TILE_WIDTH];
    _Alignas(64) float slants[DS_NEAR_ROWS * DS_TILE_WIDTH];             /* gradients of the scores */
    float lse[DS_NEAR_ROWS], dot[DS_NEAR_ROWS];
} near;

/* Panel of keys or values from `key` on. */
DS_OUT_OF_LINE void bring_panel(near *p, float *panel, float *rows, const tokens *t, const geometry *g, int64_t key, int64_t n,
                             float scale) {
    const int64_t stride = ds_padded(g->d);
    ds_bring(rows, token_at(t, p->s.batch, p->s.first_key + key, p->group), t->token, n, g->d, t->dtype);
    __builtin_memset(rows + n * stride, 0, (size_t)((DS_TILE_WIDTH - n) * stride) * 4);
    ds_turn_in(panel, DS_TILE_WIDTH, rows, g->d, scale);
}

/* Brings `n` rows from `first` on, and as many of zeros without weights as make tiles whole. */
DS_OUT_OF_LINE void bring_block(near *p, const ds_call *call, const work *w, int64_t first, int64_t n) {
    const geometry *g = &w->g;
    const tokens q = tokens_of(call, Q), d_o = tokens_of(call, DO);
    const float *lse = ds_arg_tensor(call, LSE, 0)->data;
    const int64_t stride = ds_padded(g->d), whole = ds_tile_lines(n);
    bring_rows(p->q, &q, g, &p->s, p->group, first, n);
    bring_rows(p->d_o, &d_o, g, &p->s, p->group, first, n);
    __builtin_memset(p->q + n * stride, 0, (size_t)((whole - n) * stride) * 4);
    __builtin_memset(p->d_o + n * stride, 0, (size_t)((whole - n) * stride) * 4);
    for (int64_t i = 0; i < whole; i++) {
        p->lse[i] = __builtin_inff();
        p->dot[i] = 0;
        if (i >= n) continue;
        int64_t query = p->s.first_query + (first + i) / p->shared, of = (first + i) % p->shared;
        float sum = DS_LOG2_E * lse[(p->s.batch * g->heads + p->head + of) * g->queries + query];
        if (sum != -__builtin_inff()) p->lse[i] = sum; /* else it sees nothing */
        p->dot[i] = w->dots[row_number(g, p->group, p->s.batch, query, of)];
    }
}

/* Takes from the scores of `n` rows what distance costs, and hides the keys that they do not see. */
DS_OUT_OF_LINE void hide(near *p, const geometry *g, int64_t first, int64_t n, int64_t key) {
    for (int64_t i = 0; i < n; i++) {
        int64_t query = (first + i) / p->shared;
        float slope = p->slopes ? DS_LOG2_E * p->slopes[p->head + (first + i) % p->shared] : 0;
        int32_t meets = (int32_t)(query + p->s.keys - p->s.queries);
        range seen = keys_of(g, &p->s, query);
        for (int32_t j = 0; j < DS_TILE_WIDTH; j += DS_LANES) {
            ds_vec_i32 at;
            for (int l = 0; l < DS_LANES; l++) at[l] = (int32_t)key + j + l;
            ds_vec score = ds_load(p->weights, i * DS_TILE_WIDTH + j, DS_F32);
            if (p->slopes) score -= slope * ds_vabs(__builtin_convertvector(meets - at, ds_vec));
            score = ds_vselect((at >= (int32_t)seen.from) & (at < (int32_t)seen.end), score, ds_splat(-__builtin_inff()));
            ds_store(p->weights, i * DS_TILE_WIDTH + j, score, DS_F32);
        }
    }
}

/* Weights of the rows of a block, and the gradients of their scores. */
DS_OUT_OF_LINE void slope_of_scores(near *p, const geometry *g, int64_t first, int64_t n, int64_t key) {
    const int64_t stride = ds_padded(g->d);
    ds_tile sums;
    for (int64_t i = 0; i < n; i += DS_TILE_ROWS) {
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->q + i * stride, stride, 1, p->k, DS_TILE_WIDTH, g->d, DS_TILE_VECTORS);
        ds_tile_keep(p->weights + i * DS_TILE_WIDTH, sums, DS_TILE_VECTORS);
    }
    range least = keys_of(g, &p->s, first / p->shared), most = keys_of(g, &p->s, (first + n - 1) / p->shared);
    if (p->slopes || key < most.from || key + DS_TILE_WIDTH > least.end) hide(p, g, first, n, key);
    for (int64_t i = 0; i < n; i += DS_TILE_ROWS) {
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->d_o + i * stride, stride, 1, p->v, DS_TILE_WIDTH, g->d, DS_TILE_VECTORS);
#pragma GCC unroll 16
        for (int l = 0; l < DS_TILE_ROWS; l++)
#pragma GCC unroll 4
            for (int j = 0; j < DS_TILE_VECTORS; j++) {
                const int64_t at = (i + l) * DS_TILE_WIDTH + j * DS_LANES;
                ds_vec weight = ds_vexp2(ds_load(p->weights, at, DS_F32) - p->lse[i + l]);
                ds_store(p->weights, at, weight, DS_F32);
                sums[l * DS_TILE_VECTORS + j] = weight * (sums[l * DS_TILE_VECTORS + j] - p->dot[i + l]);
            }
        ds_tile_keep(p->slants + i * DS_TILE_WIDTH, sums, DS_TILE_VECTORS);
    }
}

/* Columns of sums += slants * keys, of at most a tile of rows. */
DS_INLINE void add_columns(float *to, const float *slants, const float *keys, int64_t d, int64_t n, int vectors) {
    const int64_t stride = ds_padded(d);
    ds_tile sums;
    ds_tile_clear(sums);
    ds_tile_multiply(sums, slants, DS_TILE_WIDTH, 1, keys, stride, DS_TILE_WIDTH, vectors);
#pragma GCC unroll 16
    for (int l = 0; l < DS_TILE_ROWS; l++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            if (l >= n) continue;
            float *sum = to + l * stride + j * DS_LANES;
            ds_store(sum, 0, ds_load(sum, 0, DS_F32) + sums[l * vectors + j], DS_F32);
        }
}

/* Adds to the gradients of `n` rows what comes by the panel's keys. */
DS_OUT_OF_LINE void add_to_queries(float *to, const near *p, int64_t n, int64_t d) {
    const int64_t stride = ds_padded(d);
    for (int64_t i = 0; i < n; i += DS_TILE_ROWS) {
        const float *slants = p->slants + i * DS_TILE_WIDTH;
        for (int64_t c = 0; c < stride;) {
            int64_t left = (stride - c) / DS_LANES; /* four are twice two: of one, a tile has too few sums */
            float *sums = to + i * stride + c;
            if (DS_TILE_VECTORS > 2 && left > 2 && left != 4) {
                add_columns(sums, slants, p->keys + c, d, n - i, DS_TILE_VECTORS);
                c += DS_TILE_VECTORS * DS_LANES;
            } else if (left > 1) {
                add_columns(sums, slants, p->keys + c, d, n - i, 2);
                c += 2 * DS_LANES;
            } else {
                add_columns(sums, slants, p->keys + c, d, n - i, 1);
                c += DS_LANES;
            }
        }
    }
}

/* Writes the gradient of `n` keys or values from `key` on. */
DS_OUT_OF_LINE void put_panel(near *p, const tokens *t, const float *panel, const geometry *g, int64_t key, int64_t n, float scale) {
    ds_vec scales[DS_TILE_VECTORS];
    for (int j = 0; j < DS_TILE_VECTORS; j++) scales[j] = ds_splat(scale);
    ds_turn_out(p->keys, panel, DS_TILE_WIDTH, g->d, scales);
    for (int64_t i = 0; i < n; i++)
        ds_put_head(token_at(t, p->s.batch, p->s.first_key + key + i, p->group), p->keys + i * ds_padded(g->d), g->d, t->dtype);
}

/* The rows that see keys from `key` on, up to the next panel. */
static inline range rows_of(const geometry *g, const near *p, int64_t key) {
    int64_t lead = p->s.queries - p->s.keys, all = p->s.queries;
    int64_t from = g->right < 0 ? 0 : ds_min(all, ds_max(0, key + lead - g->right));
    int64_t end = g->left < 0 ? all : ds_min(all, ds_max(from, key + DS_TILE_WIDTH + lead + g->left));
    return (range){from * p->shared, end * p->shared};
}

DS_OUT_OF_LINE void pass(near *p, const ds_call *call, const work *w, const layout *at, int64_t key, float *dq) {
    const geometry *g = &w->g;
    const tokens k = tokens_of(call, K), v = tokens_of(call, V);
    const tokens dk = tokens_of(call, (uint32_t)at->dk), dv = tokens_of(call, (uint32_t)at->dv);
    const int64_t n_keys = ds_min(DS_TILE_WIDTH, p->s.keys - key), d = g->d;
    bring_panel(p, p->v, p->keys, &v, g, key, n_keys, 1);
    bring_panel(p, p->k, p->keys, &k, g, key, n_keys, p->scale * DS_LOG2_E);
    __builtin_memset(p->dk, 0, (size_t)(ds_tile_lines(d) * DS_TILE_WIDTH) * 4);
    __builtin_memset(p->dv, 0, (size_t)(ds_tile_lines(d) * DS_TILE_WIDTH) * 4);
    range rows = rows_of(g, p, key);
    for (int64_t first = rows.from; first < rows.end; first += DS_NEAR_ROWS) {
        int64_t n = ds_min(DS_NEAR_ROWS, rows.end - first);
        bring_block(p, call, w, first, n);
        slope_of_scores(p, g, first, n, key);
        ds_add_rows(p->dv, 0, p->d_o, p->weights, n, d, DS_TILE_VECTORS);
        ds_add_rows(p->dk, 0, p->q, p->slants, n, d, DS_TILE_VECTORS);
        add_to_queries(dq + first * w->sums, p, n, d);
    }
    put_panel(p, &dk, p->dk, g, key, n_keys, p->scale);
    put_panel(p, &dv, p->dv, g, key, n_keys, 1);
}

/* Keys that nobody sees have a gradient of zero; where starts are wrong, nobody knows. */
static void pass_unseen(near *p, const ds_call *call, const work *w, const layout *at) {
    const tokens dk = tokens_of(call, (uint32_t)at->dk), dv = tokens_of(call, (uint32_t)at->dv);
    const float value = p->s.is_wrong ? __builtin_nanf("") : 0;
    for (int64_t c = 0; c < w->sums; c++) p->keys[c] = value;
    for (int64_t i = 0; i < p->s.unseen; i++) {
        ds_put_head(token_at(&dk, 0, p->s.first_key + i, p->group), p->keys, w->g.d, dk.dtype);
        ds_put_head(token_at(&dv, 0, p->s.first_key + i, p->group), p->keys, w->g.d, dv.dtype);
    }
}

static void run_item(near *p, const ds_call *call, const work *w, const layout *at, int64_t item) {
    const geometry *g = &w->g;
    int64_t share = item % w->shares, of = item / w->shares, place = of % w->slots;
    p->group = of / w->slots;
    p->head = first_head(g, p->group);
    p->shared = first_head(g, p->group + 1) - p->head;
    p->s = sequence_at(call, g, 0, &place);
    if (p->s.queries < 0) return;
    p->slopes = ds_optional(call, (uint32_t)at->alibi);
    p->scale = (float)call->scalars[0].f;
    float *dq = w->dq + (share * w->rows + row_number(g, p->group, p->s.batch, p->s.first_query, 0)) * w->sums;
    const float start = p->s.is_wrong ? __builtin_nanf("") : 0;
    for (int64_t i = 0; i < p->s.queries * p->shared * w->sums; i++) dq[i] = start;
    if (share == 0 && p->s.unseen) pass_unseen(p, call, w, at);
    for (int64_t key = share * DS_TILE_WIDTH; key < p->s.keys; key += w->shares * DS_TILE_WIDTH) pass(p, call, w, at, key, dq);
}

/* Calls a statement with each head `h` of query `item`, and its row as `number`. */
#define EACH_HEAD(g, item, statement)                                                                  \
    for (int64_t group = 0; group < (g)->groups; group++) {                                            \
        int64_t batch = (item) / (g)->queries, query = (item) % (g)->queries;                          \
        for (int64_t h = first_head(g, group); h < first_head(g, group + 1); h++) {                    \
            int64_t number = row_number(g, group, batch, query, h - first_head(g, group));             \
            statement;                                                                                 \
        }                                                                                              \
    }

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, const layout *at) {
    work w = work_of(call, at);
    const geometry *g = &w.g;
    const tokens d_o = tokens_of(call, DO), o = tokens_of(call, O), dq = tokens_of(call, (uint32_t)at->dq);
    near p;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0) write_table(call, g, at->starts, 0);
        else if (phase == 1) {
            EACH_HEAD(g, item, w.dots[number] = ds_dot(token_at(&d_o, batch, query, h), token_at(&o, batch, query, h), g->d, o.dtype));
        } else if (phase == 2) run_item(&p, call, &w, at, item);
        else EACH_HEAD(g, item, {
            float *sum = w.dq + number * w.sums;
            for (int64_t c = 0; c < w.sums; c += DS_LANES) {
                ds_vec all = ds_load(sum, c, DS_F32);
                for (int64_t i = 1; i < w.shares; i++) all += ds_load(sum, i * w.rows * w.sums + c, DS_F32);
                ds_store(p.q, c, all * (float)call->scalars[0].f, DS_F32);
            }
            ds_put_head(token_at(&dq, batch, query, h), p.q, g->d, dq.dtype);
        });
    }
}

#define KERNEL(symbol, at)                                                                          \
    static void plan_##symbol(const ds_call *call, ds_plan *out) { plan(call, out, &at); }          \
    static void run_##symbol(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {     \
        run(call, phase, begin, end, &at);                                                          \
    }                                                                                               \
    DS_KERNEL(symbol, plan_##symbol, run_##symbol)

KERNEL(ds_flash_attn_backward, BATCH);
KERNEL(ds_flash_attn_varlen_backward, PACKED);
