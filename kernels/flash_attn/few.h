/* Attention of few rows, as in a step of generation, on a CPU.
 *
 * Limit: memory, keys and values once. A tile would have most of its columns empty, so here it is keys
 * that lie on the lanes: products of a head become scores by turning them, a vector of keys at a time.
 */
#ifndef DS_FEW_H
#define DS_FEW_H

#include "forward.h"

enum { FEW_ROWS = 4 /* more of a sequence and head of keys are cheaper in a tile */ };

/* Scores of a row and the DS_LANES keys from `keys` on. */
DS_INLINE ds_vec score_of_keys(const float *q, const float *keys, int64_t stride) {
    ds_vec line[DS_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < DS_LANES; i++) line[i] = ds_load(q, 0, DS_F32) * ds_load(keys, i * stride, DS_F32);
    for (int64_t c = DS_LANES; c < stride; c += DS_LANES) {
        ds_vec part = ds_load(q, c, DS_F32);
#pragma GCC unroll 16
        for (int i = 0; i < DS_LANES; i++) line[i] = ds_vfma(part, ds_load(keys, i * stride + c, DS_F32), line[i]);
    }
    ds_turn(line);
#pragma GCC unroll 4
    for (int half = DS_LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) line[i] += line[i + half];
    return line[0];
}

/* o = before * o + weights * values, a few vectors at a time. */
DS_INLINE void add_values(float *o, float before, const float *weights, const float *values, int64_t n, int64_t stride,
                          int vectors) {
    ds_vec sum[4];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) sum[j] = before * ds_load(o, j * DS_LANES, DS_F32);
    for (int64_t i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[j] = ds_vfma(ds_splat(weights[i]), ds_load(values, i * stride + j * DS_LANES, DS_F32), sum[j]);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) ds_store(o, j * DS_LANES, sum[j], DS_F32);
}

/* Weights of `n` keys from `first` on for row `i`, whose q is `q`. Gives what is to become of its results
 * so far; what it has seen is in lane `i`. */
DS_OUT_OF_LINE float weigh_few(panel *p, const float *q, int64_t i, int64_t first, int64_t n, int64_t d) {
    const ds_vec none = ds_splat(-__builtin_inff());
    ds_vec most = none, sum = ds_splat(0);
    for (int64_t at = 0; at < n; at += DS_LANES) {
        ds_vec score = score_of_keys(q, p->k + at * ds_padded(d), ds_padded(d));
        ds_vec_i32 key;
        for (int l = 0; l < DS_LANES; l++) key[l] = (int32_t)(first + at) + l;
        score -= p->slope[i] * ds_vabs(__builtin_convertvector(p->meets[i] - key, ds_vec));
        score = ds_vselect((key >= p->seen_from[i]) & (key < p->seen_end[i]), score, none);
        most = ds_vmax(score, most);
        ds_store(p->scores, at, score, DS_F32);
    }
    float before = p->most[0][i], now = before;
    for (int l = 0; l < DS_LANES; l++) now = most[l] > now ? most[l] : now;
    for (int64_t at = 0; at < n; at += DS_LANES) {
        ds_vec weight = ds_vexp2(ds_load(p->scores, at, DS_F32) - now);
        sum += weight;
        ds_store(p->scores, at, weight, DS_F32);
    }
    float factor = ds_vexp2(ds_splat(before - now))[0];
    p->most[0][i] = now;
    p->sum[0][i] = p->sum[0][i] * factor + (float)ds_vsum(sum);
    return factor;
}

/* As `attend`, for few rows. */
DS_OUT_OF_LINE void attend_few(panel *p, const ds_call *call, const work *w, int64_t from, int64_t end) {
    const tokens k = tokens_of(call, K), v = tokens_of(call, V), q = tokens_of(call, Q);
    const int64_t d = w->g.d, stride = ds_padded(d);
    float *o = p->v + DS_NEAR_ROWS * stride; /* rows */
    bring_rows(p->q, &q, &w->g, &p->s, p->group, p->first, p->rows);
    for (int64_t i = 0; i < p->rows * stride; i++) {
        p->q[i] *= (float)call->scalars[0].f * DS_LOG2_E;
        o[i] = 0;
    }
    for (int64_t first = from / DS_NEAR_ROWS * DS_NEAR_ROWS; first < end; first += DS_NEAR_ROWS) {
        int64_t n = ds_min(DS_NEAR_ROWS, end - first);
        ds_bring(p->k, token_at(&k, p->s.batch, p->s.first_key + first, p->group), k.token, n, d, k.dtype);
        ds_bring(p->v, token_at(&v, p->s.batch, p->s.first_key + first, p->group), v.token, n, d, v.dtype);
        for (int64_t i = 0; i < p->rows; i++) {
            float before = weigh_few(p, p->q + i * stride, i, first, n, d);
            for (int64_t c = 0; c < stride; c += 4 * DS_LANES) {
                float *sums = o + i * stride + c;
                if (c + 4 * DS_LANES <= stride) add_values(sums, before, p->scores, p->v + c, n, stride, 4);
                else
                    for (int64_t b = c; b < stride; b += DS_LANES)
                        add_values(sums + b - c, before, p->scores, p->v + b, n, stride, 1);
            }
        }
    }
    __builtin_memset(o + p->rows * stride, 0, (size_t)((w->each - p->rows) * stride) * 4);
    ds_turn_in(p->o, w->each, o, d, 1);
}

#endif
