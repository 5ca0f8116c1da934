/* Transposes of blocks, in tiles that are turned within registers.
 *
 * The rows of a large block are brought near first: rows that lie a power of two apart share a few sets
 * of the caches, and would push each other out before all of their lines are used. What is stored is a
 * whole register of the result, with AVX-512 a cache line, past the caches.
 */
#ifndef TILE_H
#define TILE_H

#include "ds_cpu_simd.h"
#include "ds_cpu_strided.h"

enum {
    WIDTH = sizeof(ds_vec), /* bytes of the result that are stored at once */
    RUN = 256,              /* bytes of a row of the result in a block */
    HEIGHT = 128,           /* elements of a row of `from` in a large block, bytes in a small one */
    MOST_NEAR = HEIGHT * RUN + 64 * RUN,
    FETCHED_AHEAD = 8192, /* bytes of what is brought near */
};

/* A block: what is next to each other in `from` is `to_stride` bytes apart in `to`, and the other way
 * round. */
typedef struct {
    const char *from;
    char *to;
    int64_t from_stride, to_stride, size;
    int large, streams;
} turn;

/* Pieces of 16 bytes from as many rows as a register has room for, or all of it from one. */
DS_INLINE ds_vec_u32 pieces_at(const char *from, int64_t stride, int of_one_row) {
#if DS_LANES == 16
    if (!of_one_row) {
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)from));
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(from + stride)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(from + 2 * stride)), 2);
        return (ds_vec_u32)_mm512_inserti32x4(v, _mm_loadu_si128((const void *)(from + 3 * stride)), 3);
    }
#elif DS_LANES == 8
    if (!of_one_row) {
        __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)from));
        return (ds_vec_u32)_mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(from + stride)), 1);
    }
#endif
    (void)stride, (void)of_one_row;
    ds_vec_u32 v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

DS_INLINE void put_first(int64_t bytes, char *to, ds_vec_u32 bits) {
#if DS_LANES == 16
    _mm512_mask_storeu_epi8(to, bytes < WIDTH ? ((uint64_t)1 << bytes) - 1 : ~(uint64_t)0, (__m512i)bits);
#else
    __builtin_memcpy(to, &bits, (size_t)ds_min(WIDTH, bytes));
#endif
}

/* A block of which the rows lie `pitch` apart. A tile is N rows of the result, a register of each, from N
 * columns of `near`: squares, beside each other where a row of one does not fill a register. Interleaving
 * the first half of the registers with the second one moves every element's row index by one bit into
 * its column: as often as an index has bits, and rows are columns. Where the result goes past the caches,
 * a row of tiles is finished first, else what shares lines of `near`. */
#define TILES(type, bits)                                                                             \
    typedef type row_##type __attribute__((vector_size(WIDTH)));                                      \
    static void turn_##type(const turn *t, const char *near, int64_t pitch, int64_t height, int64_t length) { \
        enum { N = 1 << bits, LANES = WIDTH / sizeof(type) };                                         \
        row_##type row[N], next[N], low, high;                                                        \
        _Pragma("GCC unroll 64") for (int k = 0; k < LANES; k++) {                                    \
            low[k] = (type)(k / N * N + k % N / 2 + k % 2 * LANES);                                   \
            high[k] = (type)(k / N * N + N / 2 + k % N / 2 + k % 2 * LANES);                          \
        }                                                                                             \
        int64_t down = ds_div_up(height, N), across = ds_div_up(length, LANES), stride = t->to_stride; \
        for (int64_t outer = 0; outer < (t->large ? down : across); outer++)                          \
            for (int64_t inner = 0; inner < (t->large ? across : down); inner++) {                    \
                int64_t i = (t->large ? outer : inner) * N, j = (t->large ? inner : outer) * LANES;   \
                const char *from = near + j * pitch + i * (int64_t)sizeof(type);                      \
                char *to = t->to + i * stride + j * (int64_t)sizeof(type);                            \
                _Pragma("GCC unroll 16") for (int k = 0; k < N; k++)                                  \
                    row[k] = (row_##type)pieces_at(from + k * pitch, N * pitch, N == LANES);          \
                _Pragma("GCC unroll 4") for (int step = 0; step < bits; step++) {                     \
                    _Pragma("GCC unroll 8") for (int k = 0; k < N / 2; k++) {                         \
                        next[2 * k] = __builtin_shuffle(row[k], row[k + N / 2], low);                 \
                        next[2 * k + 1] = __builtin_shuffle(row[k], row[k + N / 2], high);            \
                    }                                                                                 \
                    _Pragma("GCC unroll 16") for (int k = 0; k < N; k++) row[k] = next[k];            \
                }                                                                                     \
                int64_t rows = height - i, bytes = (length - j) * (int64_t)sizeof(type);              \
                if (rows >= N && bytes >= WIDTH) {                                                    \
                    _Pragma("GCC unroll 16") for (int k = 0; k < N; k++)                              \
                        ds_put(to + k * stride, (ds_vec_u32)row[k], t->streams);                      \
                } else {                                                                              \
                    for (int k = 0; k < N && k < rows; k++) put_first(bytes, to + k * stride, (ds_vec_u32)row[k]); \
                }                                                                                     \
            }                                                                                         \
    }

/* Squares of elements of four and eight bytes fill registers; of smaller ones they would be more
 * registers than there are. */
#if DS_LANES == 16
TILES(uint8_t, 4)
TILES(uint16_t, 3)
TILES(uint32_t, 4)
TILES(uint64_t, 3)
#elif DS_LANES == 8
TILES(uint8_t, 4)
TILES(uint16_t, 3)
TILES(uint32_t, 3)
TILES(uint64_t, 2)
#else
TILES(uint8_t, 4)
TILES(uint16_t, 3)
TILES(uint32_t, 2)
TILES(uint64_t, 1)
#endif
#undef TILES

/* The most that a block has: rows of `from`, and elements of one. */
DS_INLINE int64_t block_length(int64_t size) { return RUN / size; }
DS_INLINE int64_t block_height(int64_t size, int large) { return large ? HEIGHT : HEIGHT / size; }

static void bring_near(const turn *t, char *near, int64_t pitch, int64_t height, int64_t length) {
    int64_t bytes = height * t->size, ahead = FETCHED_AHEAD / ds_max(1, bytes) * t->from_stride;
    for (int64_t j = 0; j < length; j++) {
        const char *from = t->from + j * t->from_stride;
        for (int64_t k = 0; t->large && k < bytes; k += 64) __builtin_prefetch(from + ahead + k, 0, 2);
        __builtin_memcpy(near + j * pitch, from, (size_t)bytes);
    }
}

/* `height` elements of x lie one after another, `length` of y: a block at most. Tiles at its edges are
 * read whole, which only what is near allows. */
static void turn_block(const turn *t, int64_t height, int64_t length) {
    _Alignas(64) char room[MOST_NEAR];
    int64_t pitch = t->from_stride;
    const char *near = t->from;
    if (t->large || height * t->size % WIDTH != 0 || length * t->size % WIDTH != 0) {
        near = room, pitch = ds_div_up(height * t->size, WIDTH) * WIDTH + WIDTH;
        bring_near(t, room, pitch, height, length);
    }
    switch (t->size) {
    case 1: turn_uint8_t(t, near, pitch, height, length); break;
    case 2: turn_uint16_t(t, near, pitch, height, length); break;
    case 4: turn_uint32_t(t, near, pitch, height, length); break;
    default: turn_uint64_t(t, near, pitch, height, length); break;
    }
}

#endif
