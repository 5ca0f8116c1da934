/* Gradients of attention with biases, on a CPU, for one panel of keys: as ds_cpu_attend_backward.h has it, with
 * queries that come in runs; whenever there are as many as a block holds, the panel is seen by them.
 *
 * Gradients of queries and of biases are added up in memory of the caller. A kernel calls
 * `ds_biased_gradient_begin`, `ds_biased_gradient_to` for each run of queries, `ds_biased_gradient_end`.
 */
#ifndef DS_CPU_BIASED_BACKWARD_H
#define DS_CPU_BIASED_BACKWARD_H

#include "ds_cpu_attend_backward.h"
#include "ds_cpu_biased.h"

/* What gradients come from, and where those in f32 go. */
typedef struct ds_gradients {
    ds_head d_o;
    const float *lse, *dots; /* of each query: its logarithm, and sum(do * o) */
    float *dq;               /* sums, ds_padded(d) of a query; still to be multiplied by scale */
    float *keys;             /* where not NULL, the sum for each key is written here, */
    float *pairs;            /* and the gradient of each score added here; */
    int64_t query;           /* stride of pairs */
} ds_gradients;

typedef struct ds_biased_gradient {
    ds_attention of;
    ds_gradients from;
    int64_t first, keys;
    int vectors;
    int64_t near;
    ds_heads q, d_o;             /* where those that are near lie, */
    int32_t query[DS_NEAR_ROWS]; /* and their numbers */
    ds_vec bias[DS_GEMM_VECTORS], sum[DS_GEMM_VECTORS]; /* of the keys */
    ds_gradient_panel panel;
} ds_biased_gradient;

/* A panel of keys from `first` on that no query has seen. */
DS_OUT_OF_LINE void ds_biased_gradient_begin(ds_biased_gradient *p, const ds_attention *of, const ds_gradients *from,
                                             int64_t first, int64_t keys, int vectors) {
    ds_heads k, v;
    p->of = *of;
    p->from = *from;
    p->first = first;
    p->keys = keys;
    p->vectors = vectors;
    p->near = 0;
    p->panel.keeps_d_scores = from->keys || from->pairs;
    ds_heads_along(&k, 0, ds_token(&of->k, first), of->k.token, keys, of->k.dtype);
    ds_heads_along(&v, 0, ds_token(&of->v, first), of->v.token, keys, of->v.dtype);
    ds_gradient_keys(&p->panel, &k, &v, keys, of->d, of->scale, vectors, of->k.dtype);
    float biases[DS_NEAR_ROWS];
    if (of->bias.keys) ds_bring_biases(biases, ds_at(of->bias.keys, first, of->bias.dtype), 0, 1, keys, of->bias.dtype);
    for (int j = 0; j < vectors; j++) {
        p->sum[j] = ds_splat(0);
        for (int l = 0; l < DS_LANES; l++) {
            const int at = j * DS_LANES + l; /* a lane without a key weighs nothing */
            p->bias[j][l] = at >= keys ? -__builtin_inff() : of->bias.keys ? DS_LOG2_E * biases[at] : 0;
        }
    }
}

DS_INLINE void ds_biased_gradient_pairs(ds_biased_gradient *p, uint32_t t) {
    const ds_biases *b = &p->of.bias;
    for (int64_t i = 0; i < p->near; i++)
        for (int j = 0; j < p->vectors; j++) {
            float *at = p->panel.weights + (i * p->vectors + j) * DS_LANES;
            const void *from = ds_at(b->pairs, p->query[i] * b->query + p->first, t);
            ds_vec more = ds_load_first(ds_max(0, p->keys - j * DS_LANES), from, j * DS_LANES, t);
            ds_store(at, 0, ds_vfma(more, ds_splat(DS_LOG2_E), ds_load(at, 0, DS_F32)), DS_F32);
        }
}

/* Adds biases to scores and hides what comes after a query. */
DS_OUT_OF_LINE void ds_biased_gradient_change(void *of) {
    ds_biased_gradient *p = of;
    if (p->of.bias.pairs) DS_WITH_FLOAT(t, p->of.bias.dtype, ds_biased_gradient_pairs(p, t));
    const int causal = p->of.causal;
    for (int j = 0; j < p->vectors; j++) {
        ds_vec_i32 key;
        for (int l = 0; l < DS_LANES; l++) key[l] = (int32_t)p->first + j * DS_LANES + l;
        for (int64_t i = 0; i < p->near; i++) {
            float *at = p->panel.weights + (i * p->vectors + j) * DS_LANES;
            ds_vec score = ds_load(at, 0, DS_F32) + p->bias[j];
            if (causal) score = ds_vselect(key <= p->query[i], score, ds_splat(-__builtin_inff()));
            ds_store(at, 0, score, DS_F32);
        }
    }
}

/* Adds to the gradients of biases. */
DS_OUT_OF_LINE void ds_biased_gradient_add(ds_biased_gradient *p) {
    for (int64_t i = 0; i < p->near; i++)
        for (int j = 0; j < p->vectors; j++) {
            const ds_vec d_score = ds_load(p->panel.d_scores, (i * p->vectors + j) * DS_LANES, DS_F32);
            p->sum[j] += d_score;
            const int64_t keys = p->keys - j * DS_LANES;
            if (!p->from.pairs || keys <= 0) continue;
            float *to = p->from.pairs + p->query[i] * p->from.query + p->first + j * DS_LANES;
            if (keys >= DS_LANES) ds_store(to, 0, ds_load(to, 0, DS_F32) + d_score, DS_F32);
            else ds_store_first(keys, to, 0, ds_load_first(keys, to, 0, DS_F32) + d_score, DS_F32);
        }
}

DS_INLINE void ds_biased_gradient_see_of(ds_biased_gradient *p, int vectors, uint32_t form) {
    const ds_attention *of = &p->of;
    const int changes = p->keys < vectors * DS_LANES || of->bias.keys || of->bias.pairs || of->causal;
    ds_gradient_see(&p->panel, p->near, of->d, vectors, form, changes ? ds_biased_gradient_change : 0, p);
}

/* Lets the queries that are near see the panel. */
DS_OUT_OF_LINE void ds_biased_gradient_see(ds_biased_gradient *p) {
    const uint32_t dtype = p->of.q.dtype;
    if (p->near == 0) return;
    ds_gradient_queries(&p->panel, &p->q, &p->d_o, p->near, p->of.d, dtype);
    DS_WITH_FORM(form, ds_form_of_heads(dtype, p->of.d), {
        if (p->vectors == 1) ds_biased_gradient_see_of(p, 1, form);
        else ds_biased_gradient_see_of(p, 2, form);
    });
    if (p->from.keys || p->from.pairs) ds_biased_gradient_add(p);
    p->near = 0;
}

/* Adds `n` queries from `query` on to those that are near, and lets as many as make blocks see the panel. */
DS_OUT_OF_LINE void ds_biased_gradient_to(ds_biased_gradient *p, int64_t query, int64_t n) {
    const ds_head *q = &p->of.q, *d_o = &p->from.d_o;
    for (int64_t now; n > 0; query += now, n -= now) {
        now = ds_min(DS_NEAR_ROWS - p->near, n);
        ds_heads_along(&p->q, p->near, ds_token(q, query), q->token, now, q->dtype);
        ds_heads_along(&p->d_o, p->near, ds_token(d_o, query), d_o->token, now, d_o->dtype);
        for (int64_t i = 0; i < now; i++) {
            const int64_t at = p->near + i;
            const float sum = DS_LOG2_E * p->from.lse[query + i];
            p->query[at] = (int32_t)(query + i);
            p->panel.lse[at] = sum == -__builtin_inff() ? -sum : sum; /* -infinity: it sees nothing */
            p->panel.dot[at] = p->from.dots[query + i];
            p->panel.dq[at] = p->from.dq + (query + i) * ds_padded(p->of.d);
        }
        p->near += now;
        if (p->near == DS_NEAR_ROWS) ds_biased_gradient_see(p);
    }
}

DS_OUT_OF_LINE void ds_biased_gradient_put(ds_biased_gradient *p, const ds_head *to, const float *lines, float scale) {
    ds_gradient_results(&p->panel, lines, p->of.d, scale, p->vectors);
    for (int64_t i = 0; i < p->keys; i++)
        ds_put_head(ds_token(to, p->first + i), p->panel.keys + i * ds_padded(p->of.d), p->of.d, to->dtype);
}

/* Writes the gradients of the panel's keys and values, and the sums for its keys. */
DS_OUT_OF_LINE void ds_biased_gradient_end(ds_biased_gradient *p, const ds_head *dk, const ds_head *dv) {
    ds_biased_gradient_see(p);
    ds_biased_gradient_put(p, dk, p->panel.dk, p->of.scale);
    ds_biased_gradient_put(p, dv, p->panel.dv, 1);
    if (!p->from.keys) return;
    for (int j = 0; j < p->vectors; j++)
        ds_store_first(ds_max(0, p->keys - j * DS_LANES), p->from.keys, p->first + j * DS_LANES, p->sum[j], DS_F32);
}

#endif
