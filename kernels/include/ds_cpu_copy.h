/* Copies of bytes for CPU kernels. */
#ifndef DS_CPU_COPY_H
#define DS_CPU_COPY_H

#include "ds_cpu_simd.h"

/* `bytes` from one place to another, past the caches where `streams` and the place allows. Fetched
 * meanwhile: `next`, which will be copied after it, or, where that is NULL, what lies ahead; and the lines
 * that are written soon, unless they go past the caches. Fetching only what is read leaves the stores
 * behind, within the caches too. */
static __attribute__((unused)) void ds_copy_bytes(void *to, const void *from, const void *next, int64_t bytes,
                                                  int streams) {
    const int64_t width = sizeof(ds_vec_u32), read_ahead = 2048, write_ahead = 1024;
    int64_t i = 0;
    streams = streams && ds_aligned(to);
    if (!next) next = (const char *)from + read_ahead;
    for (; i + width <= bytes; i += width) {
        ds_vec_u32 bits;
        __builtin_prefetch((const char *)next + i, 0, 3);
        if (!streams) __builtin_prefetch((char *)to + i + write_ahead, 1, 3);
        __builtin_memcpy(&bits, (const char *)from + i, sizeof bits);
        ds_put((char *)to + i, bits, streams);
    }
    if (i < bytes) __builtin_memcpy((char *)to + i, (const char *)from + i, (size_t)(bytes - i));
}

#endif
