/* Lists of tensors, as optimizers take them: cut into blocks, so that hundreds of small tensors keep
 * the threads as busy as a single large one.
 *
 * Phase 0 of such a kernel is one item: the blocks before each tensor are counted into the workspace.
 * In later phases an item is a block of one tensor. Blocks follow from shapes alone.
 */
#ifndef DS_CPU_LIST_H
#define DS_CPU_LIST_H

#include "ds_cpu_simd.h"

enum { DS_LIST_BLOCK = 16 * 1024 /* elements */ };

DS_INLINE int64_t ds_list_blocks_of(const ds_call *call, uint32_t list, uint32_t tensor) {
    return ds_div_up(ds_elements(ds_arg_tensor(call, list, tensor)), DS_LIST_BLOCK);
}

DS_INLINE int64_t ds_list_blocks(const ds_call *call, uint32_t list) {
    int64_t blocks = 0;
    for (uint32_t i = 0; i < call->args[list].count; i++) blocks += ds_list_blocks_of(call, list, i);
    return blocks;
}

/* Bytes of the counts, at the beginning of the workspace. */
DS_INLINE int64_t ds_list_bytes(const ds_call *call, uint32_t list) {
    return ((int64_t)call->args[list].count + 1) * 8;
}

DS_INLINE ds_phase ds_list_phase(int64_t blocks) {
    return (ds_phase){.items = blocks, .grain = ds_min(ds_max(1, blocks / 256), 8)};
}

/* Phases 0 and 1, and the counts in the workspace. */
DS_INLINE void ds_list_plan(const ds_call *call, uint32_t list, ds_plan *out) {
    out->phases = 2;
    out->phase[0] = (ds_phase){.items = 1, .grain = 1};
    out->phase[1] = ds_list_phase(ds_list_blocks(call, list));
    out->workspace_bytes = ds_list_bytes(call, list);
}

/* What phase 0 does. */
DS_INLINE void ds_list_count(const ds_call *call, uint32_t list) {
    int64_t *before = call->workspace;
    before[0] = 0;
    for (uint32_t i = 0; i < call->args[list].count; i++)
        before[i + 1] = before[i] + ds_list_blocks_of(call, list, i);
}

/* A block: elements from `begin` to `end` of a tensor of the list. */
typedef struct ds_list_part {
    int64_t block, begin, end;
    uint32_t tensor;
} ds_list_part;

DS_INLINE ds_list_part ds_list_part_of(const ds_call *call, uint32_t list, int64_t block, uint32_t tensor) {
    const int64_t *before = call->workspace;
    int64_t begin = (block - before[tensor]) * DS_LIST_BLOCK;
    int64_t end = ds_min(begin + DS_LIST_BLOCK, ds_elements(ds_arg_tensor(call, list, tensor)));
    return (ds_list_part){block, begin, end, tensor};
}

/* Where a block lies: in the last tensor with at most `block` blocks before it, which is never one
 * without elements. */
DS_INLINE ds_list_part ds_list_first(const ds_call *call, uint32_t list, int64_t block) {
    const int64_t *before = call->workspace;
    uint32_t low = 0, high = call->args[list].count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (before[middle] <= block) low = middle;
        else high = middle;
    }
    return ds_list_part_of(call, list, block, low);
}

/* The block behind `at`, where there is one before block `end`; else only its number is right. */
DS_INLINE ds_list_part ds_list_next(const ds_call *call, uint32_t list, ds_list_part at, int64_t end) {
    const int64_t *before = call->workspace;
    at.block++;
    if (at.block >= end) return at;
    while (before[at.tensor + 1] <= at.block) at.tensor++;
    return ds_list_part_of(call, list, at.block, at.tensor);
}

/* `DS_LIST_BLOCKS(call, list, at, begin, end) { .. at.tensor, at.begin, at.end .. }` */
#define DS_LIST_BLOCKS(call, list, at, from, to) \
    for (ds_list_part at = ds_list_first(call, list, from); at.block < (to); at = ds_list_next(call, list, at, to))

/* Whether the optional flag on the device says that a step is to change nothing. */
DS_INLINE int ds_list_skips(const ds_call *call, uint32_t found_inf) {
    return call->args[found_inf].count && *(const float *)ds_arg_tensor(call, found_inf, 0)->data != 0;
}

#endif
