/* Transposes of blocks, in square tiles that are turned within registers. */
#ifndef TILE_H
#define TILE_H

#include "ds_cpu_simd.h"
#include "ds_cpu_strided.h"

/* A block: what is next to each other in `from` is `to_stride` bytes apart in `to`, and the other way
 * round. */
typedef struct {
    const char *from;
    char *to;
    int64_t from_stride, to_stride, size;
} turn;

/* A tile of SIDE by SIDE elements of `type`. Interleaving the first half of its rows with the second one
 * moves every element's row index by one bit into its column: as often as an index has bits, and rows
 * are columns. */
#define TILE(type, bits)                                                                        \
    enum { SIDE_##type = 1 << bits };                                                           \
    typedef type row_##type __attribute__((vector_size(sizeof(type) << bits)));                 \
    DS_INLINE void turn_tile_##type(const turn *t, int64_t i, int64_t j) {                      \
        enum { N = SIDE_##type };                                                               \
        row_##type row[N], next[N], low, high;                                                  \
        for (int k = 0; k < N; k++) {                                                           \
            low[k] = (type)(k / 2 + k % 2 * N);                                                 \
            high[k] = (type)(N / 2 + k / 2 + k % 2 * N);                                        \
        }                                                                                       \
        const char *from = t->from + j * t->from_stride + i * t->size;                          \
        char *to = t->to + i * t->to_stride + j * t->size;                                      \
        for (int k = 0; k < N; k++) __builtin_memcpy(&row[k], from + k * t->from_stride, sizeof row[k]); \
        for (int step = 0; step < bits; step++) {                                               \
            for (int k = 0; k < N / 2; k++) {                                                   \
                next[2 * k] = __builtin_shuffle(row[k], row[k + N / 2], low);                   \
                next[2 * k + 1] = __builtin_shuffle(row[k], row[k + N / 2], high);              \
            }                                                                                   \
            for (int k = 0; k < N; k++) row[k] = next[k];                                       \
        }                                                                                       \
        for (int k = 0; k < N; k++) __builtin_memcpy(to + k * t->to_stride, &row[k], sizeof row[k]); \
    }                                                                                           \
    static void turn_block_##type(const turn *t, int64_t height, int64_t length) {              \
        int64_t i = 0;                                                                          \
        for (; i + SIDE_##type <= height; i += SIDE_##type) {                                   \
            int64_t j = 0;                                                                      \
            for (; j + SIDE_##type <= length; j += SIDE_##type) turn_tile_##type(t, i, j);      \
            for (; j < length; j++) turn_one(t, i, j, SIDE_##type);                             \
        }                                                                                       \
        for (int64_t j = 0; j < length; j++) turn_one(t, i, j, height - i);                     \
    }

/* `n` elements of a row of `from`. */
static void turn_one(const turn *t, int64_t i, int64_t j, int64_t n) {
    ds_gather(t->to + i * t->to_stride + j * t->size, t->to_stride / t->size,
              t->from + j * t->from_stride + i * t->size, 1, n, t->size);
}

/* As many as a register holds: at most a cache line, and 16 of them. */
#if DS_LANES == 16
TILE(uint8_t, 4)
TILE(uint16_t, 4)
TILE(uint32_t, 4)
TILE(uint64_t, 3)
#elif DS_LANES == 8
TILE(uint8_t, 4)
TILE(uint16_t, 3)
TILE(uint32_t, 3)
TILE(uint64_t, 2)
#else
TILE(uint8_t, 4)
TILE(uint16_t, 3)
TILE(uint32_t, 2)
TILE(uint64_t, 1)
#endif

/* `height` elements of x lie one after another, `length` of y. */
static void turn_block(const turn *t, int64_t height, int64_t length) {
    switch (t->size) {
    case 1: turn_block_uint8_t(t, height, length); break;
    case 2: turn_block_uint16_t(t, height, length); break;
    case 4: turn_block_uint32_t(t, height, length); break;
    default: turn_block_uint64_t(t, height, length); break;
    }
}

#endif
