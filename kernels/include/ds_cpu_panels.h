/* Rows and panels of attention, on a CPU: bringing tokens near in f32, turning rows into the lanes of
 * vectors and back, and the two products of a tile that all is made of.
 */
#ifndef DS_CPU_PANELS_H
#define DS_CPU_PANELS_H

#include "ds_cpu_math.h"
#include "ds_cpu_gemm.h"

enum {
    MOST_D = 256,            /* of a head; kernel.json says so, too */
    TILE_ROWS = DS_GEMM_ROWS,
    VECTORS = DS_GEMM_VECTORS,
    WIDTH = DS_GEMM_COLUMNS, /* of a panel */
    BLOCK = 8 * TILE_ROWS,   /* rows that are near at a time */
    SLACK = 2 * TILE_ROWS,   /* what the last tile reads and writes beyond a head */
};

/* Not worth a copy for each dtype. */
#define OUT_OF_LINE static __attribute__((noinline, unused))

/* Numbers of a head with those that make vectors whole, of which there is one at least. */
static inline int64_t padded(int64_t d) { return ds_max(1, ds_div_up(d, DS_LANES)) * DS_LANES; }

DS_INLINE void bring_of(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t t) {
    enum { AHEAD = 8 /* rows: they lie too far apart for the processor to foresee */ };
    const int64_t stride = padded(d), whole = d / DS_LANES * DS_LANES;
    for (int64_t i = 0; i < n; i++) {
        const void *row = ds_at(from, i * across, t);
        for (int64_t c = 0; c < d; c += 64 / ds_size(t)) __builtin_prefetch(ds_at(row, AHEAD * across + c, t), 0, 3);
        for (int64_t c = 0; c < whole; c += DS_LANES) ds_store(to, i * stride + c, ds_load(row, c, t), DS_F32);
        if (whole < stride) ds_store(to, i * stride + whole, ds_load_first(d - whole, row, whole, t), DS_F32);
    }
}

/* Copies `n` heads that lie `across` apart side by side in f32, zeros behind each. */
OUT_OF_LINE void bring(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, bring_of(to, from, across, n, d, t));
}

DS_INLINE void put_of(void *to, const float *from, int64_t d, uint32_t t) {
    for (int64_t c = 0; c < d; c += DS_LANES) ds_store_first(d - c, to, c, ds_load(from, c, DS_F32), t);
}

/* Stores a head. */
OUT_OF_LINE void put(void *to, const float *from, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, put_of(to, from, d, t));
}

/* Panel from rows, of which number k of row i becomes number i of line k, times `scale`. */
OUT_OF_LINE void turn_in(float *panel, int64_t width, const float *rows, int64_t d, float scale) {
    const int64_t stride = padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++) line[i] = scale * ds_load(rows, (first + i) * stride + c, DS_F32);
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES && c + i < d; i++) ds_store(panel, (c + i) * width + first, line[i], DS_F32);
        }
}

/* And back: rows from a panel, row i times number i of `scale`. */
OUT_OF_LINE void turn_out(float *rows, const float *panel, int64_t width, int64_t d, const ds_vec *scale) {
    const int64_t stride = padded(d);
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
static inline int64_t lines(int64_t d) { return ds_div_up(d, TILE_ROWS) * TILE_ROWS; }

/* Sums of TILE_ROWS rows of as many vectors as the caller says. */
typedef ds_vec tile[DS_GEMM_SUMS];

/* sums += rows * panel, for the TILE_ROWS rows that begin `across` apart and whose `n` numbers are `along`
 * apart; lines of the panel are `width` apart. */
DS_INLINE void multiply(tile sums, const float *rows, int64_t across, int64_t along, const float *panel, int64_t width,
                        int64_t n, int vectors) {
    enum { AHEAD = 8 /* lines */ };
    const float *row[TILE_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++) row[i] = rows + i * across;
    ds_gemm_add_along(sums, row, along, panel, width, n, TILE_ROWS, vectors, AHEAD * width, DS_F32);
}

DS_INLINE void clear(tile sums) {
#pragma GCC unroll 32
    for (int i = 0; i < DS_GEMM_SUMS; i++) sums[i] = (ds_vec){0};
}

/* Stores a tile in `to`, whose lines are as wide as it is. */
DS_INLINE void keep(float *to, tile sums, int vectors) {
#pragma GCC unroll 32
    for (int i = 0; i < TILE_ROWS * vectors; i++) ds_store(to, i * DS_LANES, sums[i], DS_F32);
}

/* panel = factor * panel + rows' * weights: to line c, number c of each of `n` rows times its weights for
 * the columns. */
DS_INLINE void add_rows(float *panel, const ds_vec *factor, const float *rows, const float *weights, int64_t n,
                        int64_t d, int vectors) {
    const int64_t width = vectors * DS_LANES;
    for (int64_t c = 0; c < d; c += TILE_ROWS) {
        tile sums;
#pragma GCC unroll 32
        for (int i = 0; i < TILE_ROWS * vectors; i++) {
            sums[i] = ds_load(panel, c * width + i * DS_LANES, DS_F32);
            if (factor) sums[i] *= factor[i % vectors];
        }
        multiply(sums, rows + c, 1, padded(d), weights, width, n, vectors);
        keep(panel + c * width, sums, vectors);
    }
}

#endif
