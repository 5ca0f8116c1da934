/* Blocks of Philox words for CPU kernels; the loop over counters becomes vectors. */
#ifndef DS_CPU_PHILOX_H
#define DS_CPU_PHILOX_H

#include "ds_cpu.h"
#include "ds_philox.h"

enum {
    DS_PHILOX_COUNTERS = 16, /* at a time */
    DS_PHILOX_ROOM = 8 * DS_PHILOX_COUNTERS,
};

/* Words of positions [position, position + n), made in `room`, of n + DS_PHILOX_ROOM words; returns
 * where the first one is. Words behind the last one are there for whole vectors, too. */
static const uint32_t *ds_philox_words(uint32_t *room, int64_t n, ds_u64 position, ds_u64 seed) {
    int64_t lane = position & 3;
    for (int64_t i = 0; i < n + lane; i += 4 * DS_PHILOX_COUNTERS) {
        ds_u64 counter = ds_philox_counter(position - (ds_u64)lane + (ds_u64)i);
        for (unsigned int j = 0; j < DS_PHILOX_COUNTERS; j++) {
            ds_philox4 four = ds_philox((counter + j) & (~(ds_u64)0 >> 2), seed);
            room[i + 4 * j] = four.a;
            room[i + 4 * j + 1] = four.b;
            room[i + 4 * j + 2] = four.c;
            room[i + 4 * j + 3] = four.d;
        }
    }
    return room + lane;
}

#endif
