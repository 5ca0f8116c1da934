/* Rows and panels of attention, on a CPU: bringing tokens near in f32, turning rows into the lanes of
 * vectors and back, and the two products of a tile that all is made of.
 */
#ifndef DS_CPU_RUNS_H
#define DS_CPU_RUNS_H

#include "ds_cpu_math.h"
#include "ds_cpu_gemm.h"

enum {
    DS_MOST_D = 256, /* of a head; kernel.json says so, too */
    DS_TILE_ROWS = DS_GEMM_ROWS,
    DS_TILE_VECTORS = DS_GEMM_VECTORS,
    DS_TILE_WIDTH = DS_GEMM_COLUMNS, /* of a panel */
    DS_NEAR_ROWS = 8 * DS_TILE_ROWS, /* rows that are near at a time */
    DS_TILE_SLACK = 2 * DS_TILE_ROWS, /* what the last tile reads and writes beyond a head */
};

/* Not worth a copy for each dtype. */
#define DS_OUT_OF_LINE static __attribute__((noinline, unused))

/* log2(e): powers of two take the place of exponentials. */
#define DS_LOG2_E 0x1.715476p+0f

/* Scores start here: -infinity has no difference to itself. */
#define DS_LEAST_SCORE (-0x1.fffffep127f)

/* Numbers of a head with those that make vectors whole, of which there is one at least. */
static inline int64_t ds_padded(int64_t d) { return ds_max(1, ds_div_up(d, DS_LANES)) * DS_LANES; }

DS_INLINE void ds_bring_of(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t t) {
    enum { AHEAD = 8 /* rows: they lie too far apart for the processor to foresee */ };
    const int64_t stride = ds_padded(d), whole = d / DS_LANES * DS_LANES;
    for (int64_t i = 0; i < n; i++) {
        const void *row = ds_at(from, i * across, t);
        for (int64_t c = 0; c < d; c += 64 / ds_size(t)) __builtin_prefetch(ds_at(row, AHEAD * across + c, t), 0, 3);
        for (int64_t c = 0; c < whole; c += DS_LANES) ds_store(to, i * stride + c, ds_load(row, c, t), DS_F32);
        if (whole < stride) ds_store(to, i * stride + whole, ds_load_first(d - whole, row, whole, t), DS_F32);
    }
}

/* Copies `n` heads that lie `across` apart side by side in f32, zeros behind each. */
DS_OUT_OF_LINE void ds_bring(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_bring_of(to, from, across, n, d, t));
}

DS_INLINE void ds_put_head_of(void *to, const float *from, int64_t d, uint32_t t) {
    for (int64_t c = 0; c < d; c += DS_LANES) ds_store_first(d - c, to, c, ds_load(from, c, DS_F32), t);
}

/* Stores a head. */
DS_OUT_OF_LINE void ds_put_head(void *to, const float *from, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_put_head_of(to, from, d, t));
}

/* Panel from rows, of which number k of row i becomes number i of line k, times `scale`. */
DS_OUT_OF_LINE void ds_turn_in(float *panel, int64_t width, const float *rows, int64_t d, float scale) {
    const int64_t stride = ds_padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++) line[i] = scale * ds_load(rows, (first + i) * stride + c, DS_F32);
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES && c + i < d; i++) ds_store(panel, (c + i) * width + first, line[i], DS_F32);
        }
}

/* And back: rows from a panel, row i times number i of `scale`. */
DS_OUT_OF_LINE void ds_turn_out(float *rows, const float *panel, int64_t width, int64_t d, const ds_vec *scale) {
    const int64_t stride = ds_padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++)
                line[i] = c + i < d ? ds_load(panel, (c + i) * width + first, DS_F32) * scale[first / DS_LANES] : (ds_vec){0};
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES; i++) ds_store(rows, (first + i) * stride + c, line[i], DS_F32);
        }
}

/* Lines of a panel of results: tiles are whole. */
static inline int64_t ds_tile_lines(int64_t d) { return ds_div_up(d, DS_TILE_ROWS) * DS_TILE_ROWS; }

/* Sums of DS_TILE_ROWS rows of as many vectors as the caller says. */
typedef ds_vec ds_tile[DS_GEMM_SUMS];

/* sums += rows * panel, for the DS_TILE_ROWS rows that begin `across` apart and whose `n` numbers are `along`
 * apart; lines of the panel are `width` apart. */
DS_INLINE void ds_tile_multiply(ds_tile sums, const float *rows, int64_t across, int64_t along, const float *panel, int64_t width,
                        int64_t n, int vectors) {
    enum { AHEAD = 8 /* lines */ };
    const float *row[DS_TILE_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < DS_TILE_ROWS; i++) row[i] = rows + i * across;
    ds_gemm_add_along(sums, row, along, panel, width, n, DS_TILE_ROWS, vectors, AHEAD * width, DS_F32);
}

DS_INLINE void ds_tile_clear(ds_tile sums) {
#pragma GCC unroll 32
    for (int i = 0; i < DS_GEMM_SUMS; i++) sums[i] = (ds_vec){0};
}

/* Stores a tile in `to`, whose lines are as wide as it is. */
DS_INLINE void ds_tile_keep(float *to, ds_tile sums, int vectors) {
#pragma GCC unroll 32
    for (int i = 0; i < DS_TILE_ROWS * vectors; i++) ds_store(to, i * DS_LANES, sums[i], DS_F32);
}

/* panel = factor * panel + rows' * weights: to line c, number c of each of `n` rows times its weights for
 * the columns. */
DS_INLINE void ds_add_rows(float *panel, const ds_vec *factor, const float *rows, const float *weights, int64_t n,
                        int64_t d, int vectors) {
    const int64_t width = vectors * DS_LANES;
    for (int64_t c = 0; c < d; c += DS_TILE_ROWS) {
        ds_tile sums;
#pragma GCC unroll 32
        for (int i = 0; i < DS_TILE_ROWS * vectors; i++) {
            sums[i] = ds_load(panel, c * width + i * DS_LANES, DS_F32);
            if (factor) sums[i] *= factor[i % vectors];
        }
        ds_tile_multiply(sums, rows + c, 1, ds_padded(d), weights, width, n, vectors);
        ds_tile_keep(panel + c * width, sums, vectors);
    }
}

/* A head of `d` numbers times another. */
DS_INLINE double ds_dot_of(const void *a, const void *b, int64_t d, uint32_t t) {
    ds_vec sum = ds_splat(0);
    for (int64_t c = 0; c < d; c += DS_LANES) sum = ds_vfma(ds_load_first(d - c, a, c, t), ds_load_first(d - c, b, c, t), sum);
    return ds_vsum(sum);
}

DS_OUT_OF_LINE float ds_dot(const void *a, const void *b, int64_t d, uint32_t dtype) {
    double sum = 0;
    DS_WITH_FLOAT(t, dtype, sum = ds_dot_of(a, b, d, t));
    return (float)sum;
}

#endif
