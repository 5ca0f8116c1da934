/* Gradients of attention of the Evoformer, on a CPU: weights come again from the logarithms that the forward
 * pass left.
 *
 * Limit: multiply-add instructions, 10 d flops a score. The gradient of a bias of pairs is a sum over
 * sequences: an item takes several sequences of a head, one after the other, and adds to sums of its own.
 */
#include "biased.h"
#include "ds_cpu_biased_backward.h"

/* evoformer_attn_backward(do, q, k, v, o, lse, bias1, bias2, dbias1, dbias2, scale) -> (dq, dk, dv).
 *
 * Phase 0: an item is a share of the sequences of a head. Phase 1: an item is a sequence; dbias1, the sum over
 * its heads. Phase 2: an item is a row of dbias2, the sum over shares. */
enum { DO, Q, K, V, O, LSE, BIAS1, BIAS2, DBIAS1, DBIAS2, DQ, DK, DV };

enum {
    ENOUGH_ITEMS = 32, /* below that the sequences of a head are dealt to several, */
    MOST_SHARES = 8,   /* at most to so many */
    CHUNK_ELEMENTS = 1 << 14,
};

typedef struct work {
    extents e;
    int64_t shares;
    int64_t sums;               /* numbers in a row of dq */
    int64_t dots_at, pairs_at;  /* within the numbers of an item, behind those of dq, */
    int64_t numbers;            /* of which there are so many */
    int has_keys, has_pairs;    /* whether gradients of biases are asked for */
    float *items, *keys;        /* for each item: its numbers; for each head of a sequence: sums for keys */
} work;

static int64_t vectors_of(int64_t n) { return ds_div_up(n, DS_LANES) * DS_LANES; }

static work work_of(const ds_call *call) {
    work w = {.e = extents_of(call, Q, K)};
    const extents *e = &w.e;
    w.has_keys = call->args[DBIAS1].count != 0;
    w.has_pairs = call->args[DBIAS2].count != 0;
    w.shares = ds_min(MOST_SHARES, ds_div_up(ENOUGH_ITEMS, ds_max(1, e->batch * e->heads)));
    w.shares = ds_max(1, ds_min(w.shares, e->n));
    w.sums = ds_padded(e->d);
    w.dots_at = e->queries * w.sums;
    w.pairs_at = w.dots_at + vectors_of(e->queries);
    w.numbers = w.pairs_at + (w.has_pairs ? vectors_of(e->queries * e->keys) : 0);
    w.items = call->workspace;
    if (w.items) w.keys = w.items + e->batch * e->heads * w.shares * w.numbers;
    return w;
}

static void plan(const ds_call *call, ds_plan *out) {
    const work w = work_of(call);
    const extents *e = &w.e;
    const int64_t items = e->batch * e->heads * w.shares, keys = w.has_keys ? e->batch * e->n * e->heads * e->keys : 0;
    out->phases = 3;
    out->phase[0].items = items;
    out->phase[0].grain = 1;
    out->phase[1].items = w.has_keys ? e->batch * e->n : 0;
    out->phase[1].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, e->heads * e->keys));
    out->phase[2].items = w.has_pairs ? e->batch * e->heads * e->queries : 0;
    out->phase[2].grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, w.shares * e->keys));
    out->workspace_bytes = (items * w.numbers + keys) * 4;
}

/* A head of a sequence, whose sums are among the numbers of an item. */
static void run_head(ds_biased_gradient *p, const ds_call *call, const work *w, float *numbers, place at) {
    const extents *e = &w->e;
    const ds_attention of = attention_of(call, e, Q, BIAS1, at);
    const ds_head dq = head_of(call, DQ, at), dk = head_of(call, DK, at), dv = head_of(call, DV, at);
    const ds_head o = head_of(call, O, at);
    const ds_gradients from = {
        .d_o = head_of(call, DO, at),
        .lse = (const float *)ds_arg_tensor(call, LSE, 0)->data + first_lse(e, at),
        .dots = numbers + w->dots_at,
        .dq = numbers,
        .keys = w->has_keys ? w->keys + ((at.b * e->n + at.n) * e->heads + at.h) * e->keys : 0,
        .pairs = w->has_pairs ? numbers + w->pairs_at : 0,
        .query = e->keys,
    };
    __builtin_memset(numbers, 0, (size_t)w->dots_at * 4);
    for (int64_t i = 0; i < e->queries; i++)
        numbers[w->dots_at + i] = ds_dot(ds_token(&from.d_o, i), ds_token(&o, i), e->d, o.dtype);
    const int vectors = ds_panel_vectors(e->keys);
    for (int64_t key = 0; key < e->keys; key += vectors * DS_LANES) {
        ds_biased_gradient_begin(p, &of, &from, key, ds_min(vectors * DS_LANES, e->keys - key), vectors);
        ds_biased_gradient_to(p, 0, e->queries);
        ds_biased_gradient_end(p, &dk, &dv);
    }
    for (int64_t i = 0; i < e->queries; i++) {
        float *sum = numbers + i * w->sums;
        for (int64_t c = 0; c < w->sums; c += DS_LANES) ds_store(sum, c, ds_load(sum, c, DS_F32) * of.scale, DS_F32);
        ds_put_head(ds_token(&dq, i), sum, e->d, dq.dtype);
    }
}

static void run_share(ds_biased_gradient *p, const ds_call *call, const work *w, int64_t item) {
    const extents *e = &w->e;
    const int64_t share = item % w->shares, head = item / w->shares;
    float *numbers = w->items + item * w->numbers;
    if (w->has_pairs) __builtin_memset(numbers + w->pairs_at, 0, (size_t)(e->queries * e->keys) * 4);
    for (int64_t n = e->n * share / w->shares; n < e->n * (share + 1) / w->shares; n++)
        run_head(p, call, w, numbers, (place){head / e->heads, n, head % e->heads});
}

DS_INLINE void sum_of(void *to, const float *from, int64_t across, int64_t parts, int64_t n, uint32_t t) {
    for (int64_t c = 0; c < n; c += DS_LANES) {
        ds_vec sum = ds_splat(0);
        for (int64_t i = 0; i < parts; i++) sum += ds_load_first(n - c, from, i * across + c, DS_F32);
        ds_store_first(n - c, to, c, sum, t);
    }
}

/* The sum of `parts` rows of `n` numbers that lie `across` apart, in their order; numbers of `dtype`. */
DS_OUT_OF_LINE void sum(void *to, const float *from, int64_t across, int64_t parts, int64_t n, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, sum_of(to, from, across, parts, n, t));
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const work w = work_of(call);
    const extents *e = &w.e;
    const uint32_t dtype = ds_arg_tensor(call, Q, 0)->dtype;
    ds_biased_gradient p;
    for (int64_t item = begin; item < end; item++) {
        if (phase == 0) run_share(&p, call, &w, item);
        else if (phase == 1)
            sum(ds_at(ds_optional(call, DBIAS1), item * e->keys, dtype), w.keys + item * e->heads * e->keys, e->keys,
                e->heads, e->keys, dtype);
        else
            sum(ds_at(ds_optional(call, DBIAS2), item * e->keys, dtype),
                w.items + item / e->queries * w.shares * w.numbers + w.pairs_at + item % e->queries * e->keys, w.numbers,
                w.shares, e->keys, dtype);
    }
}

DS_KERNEL(ds_evoformer_attn_backward, plan, run);
