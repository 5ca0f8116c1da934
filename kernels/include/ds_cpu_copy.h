/* Copies of bytes for CPU kernels. */
#ifndef DS_CPU_COPY_H
#define DS_CPU_COPY_H

#include "ds_cpu_simd.h"

/* `bytes` from one place to another, past the caches where `streams` and the place allows; `next`, where
 * there is such, is what will be copied after it, and is fetched meanwhile. */
static __attribute__((unused)) void ds_copy_bytes(void *to, const void *from, const void *next, int64_t bytes,
                                                  int streams) {
    int64_t i = 0;
    streams = streams && ds_aligned(to);
    if (streams || next) {
        for (; i + 64 <= bytes; i += 64) {
            if (next) __builtin_prefetch((const char *)next + i, 0, 3);
            for (int64_t k = i; k < i + 64; k += (int64_t)sizeof(ds_vec_u32)) {
                ds_vec_u32 bits;
                __builtin_memcpy(&bits, (const char *)from + k, sizeof bits);
                ds_put((char *)to + k, bits, streams);
            }
        }
    }
    __builtin_memcpy((char *)to + i, (const char *)from + i, (size_t)(bytes - i));
}

#endif
