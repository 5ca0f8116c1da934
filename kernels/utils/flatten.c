/* A list of tensors as one row, on a CPU.
 *
 * Limit: memory. An element is read and written once, past the caches where the result is large.
 */
#include "ds_cpu_copy.h"

/* flatten(tensors, flat). An item is a block of one tensor. */
enum { TENSORS, FLAT };
enum { BLOCK_BYTES = 64 * 1024 };

static int64_t bytes_of(const ds_tensor *t) { return ds_elements(t) * ds_size(t->dtype); }

static void plan(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].grain = 1;
    for (uint32_t i = 0; i < call->args[TENSORS].count; i++)
        out->phase[0].items += ds_div_up(bytes_of(ds_arg_tensor(call, TENSORS, i)), BLOCK_BYTES);
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *flat = ds_arg_tensor(call, FLAT, 0);
    int64_t room = bytes_of(flat), blocks_before = 0, bytes_before = 0;
    int large = ds_streams(ds_elements(flat), flat->dtype);
    for (uint32_t i = 0; i < call->args[TENSORS].count && blocks_before < end; i++) {
        const ds_tensor *t = ds_arg_tensor(call, TENSORS, i);
        int64_t bytes = bytes_of(t), blocks = ds_div_up(bytes, BLOCK_BYTES);
        int64_t last = ds_min(blocks, end - blocks_before);
        for (int64_t block = ds_max(0, begin - blocks_before); block < last; block++) {
            int64_t at = block * BLOCK_BYTES, n = ds_min(BLOCK_BYTES, bytes - at);
            n = ds_min(n, room - bytes_before - at); /* a list longer than the row is cut off */
            if (n > 0) ds_copy_bytes((char *)flat->data + bytes_before + at, (const char *)t->data + at, 0, n, large);
        }
        blocks_before += blocks;
        bytes_before += bytes;
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_flatten, plan, run);
