/* Attention with biases, on a CPU, for one panel of queries: as ds_cpu_attend.h has it, with keys that come in
 * runs, from wherever they lie; whenever there are as many as a block holds, the panel sees them.
 *
 * Families differ in which keys they let a panel see. A kernel calls `ds_biased_begin`, `ds_biased_to` for each
 * run of keys, `ds_biased_end`.
 */
#ifndef DS_CPU_BIASED_H
#define DS_CPU_BIASED_H

#include "ds_cpu_attend.h"

/* Tokens of one head. */
typedef struct ds_head {
    void *data;
    int64_t token; /* stride */
    uint32_t dtype;
} ds_head;

/* What is added to scores, each NULL for none: a number of a key, and one of a query and a key. */
typedef struct ds_biases {
    const void *keys, *pairs;
    int64_t query; /* stride of pairs; keys are neighbours */
    uint32_t dtype;
} ds_biases;

/* What a panel is to see, and of what it is. */
typedef struct ds_attention {
    ds_head q, k, v;
    ds_biases bias;
    int64_t d;
    float scale;
    int causal; /* no key after the query's own number */
} ds_attention;

/* How many vectors make panels of `rows` rows cheapest, one or two: lanes stay empty at their end, and narrow
 * tiles read more for what they multiply. A third would save a tenth at best, and take a second to compile. */
static inline int ds_panel_vectors(int64_t rows) {
    enum { ONE = 14, TWO = 11 /* cost of a vector in a tile of so many */ };
    return ds_div_up(rows, DS_LANES) * ONE < ds_div_up(rows, 2 * DS_LANES) * 2 * TWO ? 1 : 2;
}

typedef struct ds_biased {
    ds_attention of;
    int64_t first, rows; /* queries */
    int vectors;         /* of them */
    int64_t near;        /* keys that are near, */
    ds_heads k, v;       /* where they lie, */
    int32_t key[DS_NEAR_ROWS]; /* and their numbers */
    float bias[DS_NEAR_ROWS];  /* of those */
    ds_panel panel;
    _Alignas(64) float pairs[DS_GEMM_COLUMNS * DS_NEAR_ROWS]; /* biases, a line for a query, */
    _Alignas(64) float turned[DS_NEAR_ROWS * DS_GEMM_COLUMNS]; /* and a line for a key */
} ds_biased;

static inline void *ds_token(const ds_head *h, int64_t token) { return ds_at(h->data, token * h->token, h->dtype); }

DS_INLINE void ds_bring_biases_of(float *to, const void *from, int64_t across, int64_t rows, int64_t n, uint32_t t) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < n; c += DS_LANES)
            ds_store_first(n - c, to, i * DS_NEAR_ROWS + c, ds_load_first(n - c, from, i * across + c, t), DS_F32);
}

/* Copies `n` numbers of each of `rows` rows in f32 into lines of DS_NEAR_ROWS. */
DS_OUT_OF_LINE void ds_bring_biases(float *to, const void *from, int64_t across, int64_t rows, int64_t n, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_bring_biases_of(to, from, across, rows, n, t));
}

/* A panel of queries from `first` on that has seen nothing. */
DS_OUT_OF_LINE void ds_biased_begin(ds_biased *p, const ds_attention *of, int64_t first, int64_t rows, int vectors) {
    ds_heads q;
    p->of = *of;
    p->first = first;
    p->rows = rows;
    p->vectors = vectors;
    p->near = 0;
    ds_panel_clear(&p->panel, of->d, vectors);
    if (of->bias.pairs && rows < vectors * DS_LANES) __builtin_memset(p->pairs, 0, sizeof p->pairs);
    ds_heads_along(&q, 0, ds_token(&of->q, first), of->q.token, rows, of->q.dtype);
    ds_panel_queries(&p->panel, &q, rows, of->d, of->scale, vectors, of->q.dtype);
}

/* Adds biases to scores and hides what comes after a query. */
DS_OUT_OF_LINE void ds_biased_change(void *of, ds_vec *most) {
    ds_biased *p = of;
    const int64_t width = p->vectors * DS_LANES;
    const int has_pairs = p->of.bias.pairs != 0, causal = p->of.causal;
    if (has_pairs) ds_turn_in(p->turned, width, p->pairs, DS_NEAR_ROWS, DS_LOG2_E, DS_F32);
    for (int64_t j = 0; j < width; j += DS_LANES) {
        ds_vec_i32 query;
        for (int l = 0; l < DS_LANES; l++) query[l] = (int32_t)(p->first + j) + l;
        for (int64_t i = 0; i < p->near; i++) {
            float *at = p->panel.scores + i * width + j;
            ds_vec score = ds_load(at, 0, DS_F32) + p->bias[i];
            if (has_pairs) score += ds_load(p->turned, i * width + j, DS_F32);
            if (causal) score = ds_vselect(query >= p->key[i], score, ds_splat(-__builtin_inff()));
            most[j / DS_LANES] = ds_vmax(score, most[j / DS_LANES]);
            ds_store(at, 0, score, DS_F32);
        }
    }
}

DS_INLINE void ds_biased_see_of(ds_biased *p, int vectors, uint32_t form) {
    const ds_attention *of = &p->of;
    const int changes = ds_panel_lines(p->near) > p->near || of->bias.keys || of->bias.pairs || of->causal;
    ds_panel_see(&p->panel, p->near, of->d, vectors, form, changes ? ds_biased_change : 0, p);
}

/* Lets the panel see the keys that are near. */
DS_OUT_OF_LINE void ds_biased_see(ds_biased *p) {
    const uint32_t dtype = p->of.q.dtype;
    if (p->near == 0) return;
    ds_panel_keys(&p->panel, &p->k, &p->v, p->near, p->of.d, dtype);
    DS_WITH_FORM(form, ds_form_of_heads(dtype, p->of.d), {
        if (p->vectors == 1) ds_biased_see_of(p, 1, form);
        else ds_biased_see_of(p, 2, form);
    });
    p->near = 0;
}

/* Adds `n` keys from `key` on to those that are near, and lets the panel see as many as make blocks. */
DS_OUT_OF_LINE void ds_biased_to(ds_biased *p, int64_t key, int64_t n) {
    const ds_attention *of = &p->of;
    for (int64_t now; n > 0; key += now, n -= now) {
        now = ds_min(DS_NEAR_ROWS - p->near, n);
        ds_heads_along(&p->k, p->near, ds_token(&of->k, key), of->k.token, now, of->k.dtype);
        ds_heads_along(&p->v, p->near, ds_token(&of->v, key), of->v.token, now, of->v.dtype);
        for (int64_t i = 0; i < now; i++) {
            p->key[p->near + i] = (int32_t)(key + i);
            p->bias[p->near + i] = 0;
        }
        if (of->bias.keys) {
            ds_bring_biases(p->bias + p->near, ds_at(of->bias.keys, key, of->bias.dtype), 0, 1, now, of->bias.dtype);
            for (int64_t i = 0; i < now; i++) p->bias[p->near + i] *= DS_LOG2_E;
        }
        if (of->bias.pairs)
            ds_bring_biases(p->pairs + p->near, ds_at(of->bias.pairs, p->first * of->bias.query + key, of->bias.dtype),
                            of->bias.query, p->rows, now, of->bias.dtype);
        p->near += now;
        if (p->near == DS_NEAR_ROWS) ds_biased_see(p);
    }
}

/* Writes the results of the panel's rows, and the logarithms of the first and those behind it. */
DS_OUT_OF_LINE void ds_biased_end(ds_biased *p, const ds_head *o, float *lse) {
    float log[DS_GEMM_COLUMNS];
    ds_biased_see(p);
    ds_panel_results(&p->panel, p->of.d, p->vectors, 0, -__builtin_inff(), log);
    __builtin_memcpy(lse, log, (size_t)p->rows * 4);
    for (int64_t i = 0; i < p->rows; i++)
        ds_put_head(ds_token(o, p->first + i), p->panel.k + i * ds_padded(p->of.d), p->of.d, o->dtype);
}

#endif
