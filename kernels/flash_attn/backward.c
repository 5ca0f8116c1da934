/* Gradients of attention, on a CPU (Dao 2023, arXiv 2307.08691): weights come again from the logarithms
 * that the forward pass left.
 *
 * Limit: multiply-add instructions, 10 d flops for each key that a query sees, of five products.
 *
 * Keys lie on the lanes of vectors, as ds_cpu_attend_backward.h has it; a row is a query of a head. Who adds to
 * the gradients of a row are the panels of one item, in their order. Where sequences and heads are few, panels
 * are dealt to several items, each with sums of its own.
 */
#include "ds_cpu_attend_backward.h"
#include "ds_cpu_sequences.h"

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
    w.shares = ds_max(1, ds_min(w.shares, g->keys / DS_GEMM_COLUMNS));
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

/* A panel of keys of an item, and the rows that are near. */
typedef struct panel {
    ds_gradient_panel of;
    sequence s;
    const geometry *g;
    int64_t group, head, shared; /* heads of queries: the first, and how many */
    int64_t key, first, rows;    /* the first of the keys, and of so many rows */
    float scale;
    const float *slopes;
} panel;

/* Brings the rows that are near, whose sums are in `dq`. */
DS_OUT_OF_LINE void bring_rows(panel *p, const ds_call *call, const work *w, float *dq) {
    const geometry *g = &w->g;
    const tokens q = tokens_of(call, Q), d_o = tokens_of(call, DO);
    const float *lse = ds_arg_tensor(call, LSE, 0)->data;
    ds_heads at_q, at_d_o;
    heads_of_rows(&at_q, &q, g, &p->s, p->group, p->first, p->rows);
    heads_of_rows(&at_d_o, &d_o, g, &p->s, p->group, p->first, p->rows);
    ds_gradient_queries(&p->of, &at_q, &at_d_o, p->rows, g->d, q.dtype);
    for (int64_t i = 0; i < p->rows; i++) {
        int64_t query = p->s.first_query + (p->first + i) / p->shared, of = (p->first + i) % p->shared;
        float sum = DS_LOG2_E * lse[(p->s.batch * g->heads + p->head + of) * g->queries + query];
        p->of.lse[i] = sum == -__builtin_inff() ? -sum : sum; /* -infinity: it sees nothing */
        p->of.dot[i] = w->dots[row_number(g, p->group, p->s.batch, query, of)];
        p->of.dq[i] = dq + (p->first + i) * w->sums;
    }
}

/* Takes from scores what distance costs, and hides the keys that rows do not see. */
DS_OUT_OF_LINE void hide(void *of) {
    panel *p = of;
    for (int64_t i = 0; i < p->rows; i++) {
        int64_t query = (p->first + i) / p->shared;
        float slope = p->slopes ? DS_LOG2_E * p->slopes[p->head + (p->first + i) % p->shared] : 0;
        int32_t meets = (int32_t)(query + p->s.keys - p->s.queries);
        range seen = keys_of(p->g, &p->s, query);
        for (int32_t j = 0; j < DS_GEMM_COLUMNS; j += DS_LANES) {
            ds_vec_i32 at;
            for (int l = 0; l < DS_LANES; l++) at[l] = (int32_t)p->key + j + l;
            ds_vec score = ds_load(p->of.weights, i * DS_GEMM_COLUMNS + j, DS_F32);
            if (p->slopes) score -= slope * ds_vabs(__builtin_convertvector(meets - at, ds_vec));
            score = ds_vselect((at >= (int32_t)seen.from) & (at < (int32_t)seen.end), score, ds_splat(-__builtin_inff()));
            ds_store(p->of.weights, i * DS_GEMM_COLUMNS + j, score, DS_F32);
        }
    }
}

/* Lets the rows that are near see the panel. */
DS_OUT_OF_LINE void see(panel *p, uint32_t dtype) {
    range least = keys_of(p->g, &p->s, p->first / p->shared), most = keys_of(p->g, &p->s, (p->first + p->rows - 1) / p->shared);
    const int hides = p->slopes || p->key < most.from || p->key + DS_GEMM_COLUMNS > least.end;
    DS_WITH_FORM(form, ds_form_of_heads(dtype, p->g->d), ds_gradient_see(&p->of, p->rows, p->g->d, DS_GEMM_VECTORS, form, hides ? hide : 0, p));
}

/* Writes the gradient of `n` keys or values. */
DS_OUT_OF_LINE void put_panel(panel *p, const tokens *t, const float *lines, int64_t n, float scale) {
    const int64_t d = p->g->d;
    ds_gradient_results(&p->of, lines, d, scale, DS_GEMM_VECTORS);
    for (int64_t i = 0; i < n; i++)
        ds_put_head(token_at(t, p->s.batch, p->s.first_key + p->key + i, p->group), p->of.keys + i * ds_padded(d), d, t->dtype);
}

/* The rows that see the panel's keys. */
static inline range rows_of(const panel *p) {
    const geometry *g = p->g;
    int64_t lead = p->s.queries - p->s.keys, all = p->s.queries;
    int64_t from = g->right < 0 ? 0 : ds_min(all, ds_max(0, p->key + lead - g->right));
    int64_t end = g->left < 0 ? all : ds_min(all, ds_max(from, p->key + DS_GEMM_COLUMNS + lead + g->left));
    return (range){from * p->shared, end * p->shared};
}

DS_OUT_OF_LINE void pass(panel *p, const ds_call *call, const work *w, const layout *at, float *dq) {
    const geometry *g = &w->g;
    const tokens k = tokens_of(call, K), v = tokens_of(call, V);
    const tokens dk = tokens_of(call, (uint32_t)at->dk), dv = tokens_of(call, (uint32_t)at->dv);
    const int64_t keys = ds_min(DS_GEMM_COLUMNS, p->s.keys - p->key), token = p->s.first_key + p->key;
    ds_heads at_k, at_v;
    ds_heads_along(&at_k, 0, token_at(&k, p->s.batch, token, p->group), k.token, keys, k.dtype);
    ds_heads_along(&at_v, 0, token_at(&v, p->s.batch, token, p->group), v.token, keys, v.dtype);
    ds_gradient_keys(&p->of, &at_k, &at_v, keys, g->d, p->scale, DS_GEMM_VECTORS, k.dtype);
    range rows = rows_of(p);
    for (p->first = rows.from; p->first < rows.end; p->first += DS_NEAR_ROWS) {
        p->rows = ds_min(DS_NEAR_ROWS, rows.end - p->first);
        bring_rows(p, call, w, dq);
        see(p, k.dtype);
    }
    put_panel(p, &dk, p->of.dk, keys, p->scale);
    put_panel(p, &dv, p->of.dv, keys, 1);
}

/* Keys that nobody sees have a gradient of zero; where starts are wrong, nobody knows. */
static void pass_unseen(panel *p, const ds_call *call, const work *w, const layout *at) {
    const tokens dk = tokens_of(call, (uint32_t)at->dk), dv = tokens_of(call, (uint32_t)at->dv);
    const float value = p->s.is_wrong ? __builtin_nanf("") : 0;
    for (int64_t c = 0; c < w->sums; c++) p->of.keys[c] = value;
    for (int64_t i = 0; i < p->s.unseen; i++) {
        ds_put_head(token_at(&dk, 0, p->s.first_key + i, p->group), p->of.keys, w->g.d, dk.dtype);
        ds_put_head(token_at(&dv, 0, p->s.first_key + i, p->group), p->of.keys, w->g.d, dv.dtype);
    }
}

static void run_item(panel *p, const ds_call *call, const work *w, const layout *at, int64_t item) {
    const geometry *g = &w->g;
    int64_t share = item % w->shares, of = item / w->shares, place = of % w->slots;
    p->g = g;
    p->group = of / w->slots;
    p->head = first_head(g, p->group);
    p->shared = first_head(g, p->group + 1) - p->head;
    p->s = sequence_at(call, g, 0, &place);
    if (p->s.queries < 0) return;
    p->slopes = ds_optional(call, (uint32_t)at->alibi);
    p->scale = (float)call->scalars[0].f;
    p->of.keeps_d_scores = 0;
    float *dq = w->dq + (share * w->rows + row_number(g, p->group, p->s.batch, p->s.first_query, 0)) * w->sums;
    const float start = p->s.is_wrong ? __builtin_nanf("") : 0;
    for (int64_t i = 0; i < p->s.queries * p->shared * w->sums; i++) dq[i] = start;
    if (share == 0 && p->s.unseen) pass_unseen(p, call, w, at);
    for (p->key = share * DS_GEMM_COLUMNS; p->key < p->s.keys; p->key += w->shares * DS_GEMM_COLUMNS)
        pass(p, call, w, at, dq);
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
    panel p;
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
                ds_store(p.of.q, c, all * (float)call->scalars[0].f, DS_F32);
            }
            ds_put_head(token_at(&dq, batch, query, h), p.of.q, g->d, dq.dtype);
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
