/* Attention of few rows, as in a step of generation, on a CPU.
 *
 * Limit: memory, keys and values once. A tile would have most of its columns empty, so here it is keys
 * that lie on the lanes: products of a head become scores by turning them, a vector of keys at a time.
 */
#ifndef DS_FEW_H
#define DS_FEW_H

#include "attention.h"

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

#endif
