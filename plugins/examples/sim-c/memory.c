// Memory: raw allocation, copies and fills. Caching, statistics and limits are the host's.
//
// `allocate` and `free` map to the driver's allocator, `copy` and `fill` to work for the copy
// engines. Addresses given out lie in the device's range that nobody can read; queued work finds
// the bytes with `sim_resolve`, as hardware does with its page tables. A bad address is therefore
// no error of the call that queues the work, but a failure of the work.

#include "sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// A live allocation. The list of them is sorted; the gaps between them are what is free.
struct sim_block {
    struct sim_block *next;
    uint64_t offset; // in the device's range
    uint64_t bytes;  // as asked for: one byte more is out of range
};

static uint64_t round_up(uint64_t number, uint64_t power_of_two)
{
    return (number + power_of_two - 1) & ~(power_of_two - 1);
}

// The link behind which a block fits, first fit; null when no gap is large enough.
static struct sim_block **find_gap(struct sim_device *device,
                                   uint64_t bytes,
                                   uint64_t alignment,
                                   uint64_t *offset)
{
    uint64_t base = (uintptr_t)device->addresses;
    uint64_t from = 0;
    for (struct sim_block **link = &device->blocks;; link = &(*link)->next) {
        uint64_t end = *link ? (*link)->offset : sim_settings()->memory_bytes;
        uint64_t start = round_up(base + from, alignment) - base;
        if (start <= end && bytes <= end - start) {
            *offset = start;
            return link;
        }
        if (*link == NULL) {
            return NULL;
        }
        from = (*link)->offset + (*link)->bytes;
    }
}

static DsStatus memory_allocate(DsDevice handle,
                                uint64_t bytes,
                                uint64_t alignment,
                                uint32_t kind,
                                void **address,
                                DsErrorSink *error)
{
    DsStatus status = sim_enter("allocate", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL || address == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "allocate: the device or the place is null");
    }
    if (kind == DS_MEMORY_PINNED) {
        return sim_fail(error, DS_UNSUPPORTED,
                        "allocate: sim has no pinned memory: its copies read any host memory alike");
    }
    if (kind == DS_MEMORY_SHARED) {
        return sim_fail(error, DS_UNSUPPORTED,
                        "allocate: sim has no shared memory: the host cannot reach its addresses");
    }
    if (kind != DS_MEMORY_DEVICE) {
        return sim_fail(error, DS_UNSUPPORTED, "allocate: sim knows no memory of kind %u",
                        (unsigned)kind);
    }
    if (bytes == 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "allocate: %" PRIu64 " bytes aligned to %" PRIu64
                        "; take at least one byte and a power of two",
                        bytes, alignment);
    }
    if (alignment < SIM_ALIGNMENT_BYTES) {
        alignment = SIM_ALIGNMENT_BYTES;
    }
    struct sim_block *block = malloc(sizeof *block);
    if (block == NULL) {
        return sim_fail_host_memory(error);
    }

    struct sim_device *device = handle->device;
    pthread_mutex_lock(&device->lock);
    struct sim_block **link = find_gap(device, bytes, alignment, &block->offset);
    if (link != NULL) {
        block->bytes = bytes;
        block->next = *link;
        *link = block;
        device->used_bytes += bytes;
        *address = device->addresses + block->offset;
    }
    uint64_t free_bytes = sim_settings()->memory_bytes - device->used_bytes;
    pthread_mutex_unlock(&device->lock);

    if (link == NULL) {
        free(block);
        return sim_fail_with(error,
                             (struct sim_details){.code = DS_OUT_OF_MEMORY, .a = bytes, .b = free_bytes},
                             "allocate: %" PRIu64 " bytes do not fit; %" PRIu64
                             " are free on %s, not all in one piece",
                             bytes, free_bytes, device->uuid);
    }
    sim_made(SIM_BLOCK);
    return DS_OK;
}

static DsStatus
memory_free(DsDevice handle, void *address, uint64_t bytes, uint32_t kind, DsErrorSink *error)
{
    DsStatus status = sim_enter("free", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "free: the device is null");
    }
    struct sim_device *device = handle->device;
    uint64_t offset = (uintptr_t)address - (uintptr_t)device->addresses;
    struct sim_block *block = NULL;
    pthread_mutex_lock(&device->lock);
    for (struct sim_block **link = &device->blocks; *link != NULL; link = &(*link)->next) {
        if ((*link)->offset == offset) {
            if ((*link)->bytes == bytes && kind == DS_MEMORY_DEVICE) {
                block = *link;
                *link = block->next;
                device->used_bytes -= bytes;
                // Whoever still reads it shall notice.
                memset(device->storage + offset, 0xDD, (size_t)bytes);
            }
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
    if (block == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "free: %s has no allocation of %" PRIu64 " bytes of kind %u at %p; give "
                        "back what `allocate` gave, once",
                        device->uuid, bytes, (unsigned)kind, address);
    }
    free(block);
    sim_given_back(SIM_BLOCK);
    return DS_OK;
}

static DsStatus memory_info(DsDevice handle, DsMemoryInfo *info, DsErrorSink *error)
{
    DsStatus status = sim_enter("info", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "info: the device is null");
    }
    struct sim_device *device = handle->device;
    DsMemoryInfo filled = {.total_bytes = sim_settings()->memory_bytes};
    pthread_mutex_lock(&device->lock);
    filled.free_bytes = filled.total_bytes - device->used_bytes;
    pthread_mutex_unlock(&device->lock);
    if (!sim_give(info, &filled, sizeof filled)) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "info: info is null or states no struct_size");
    }
    return DS_OK;
}

void *sim_resolve(struct sim_device *device, uint64_t address, uint64_t bytes)
{
    // Below the range this wraps around to an offset behind every block.
    uint64_t offset = address - (uintptr_t)device->addresses;
    void *found = NULL;
    pthread_mutex_lock(&device->lock);
    for (const struct sim_block *block = device->blocks; block != NULL; block = block->next) {
        uint64_t inside = offset - block->offset;
        if (offset >= block->offset && inside <= block->bytes && bytes <= block->bytes - inside) {
            found = device->storage + offset;
            break;
        }
    }
    pthread_mutex_unlock(&device->lock);
    return found;
}

// ---- Copies

struct copy_work {
    struct sim_work work;
    struct sim_device *destination_device; // null for host memory
    struct sim_device *source_device;      // null for host memory
    void *destination;
    const void *source;
    uint64_t bytes;
};

static void *resolve_or_host(struct sim_device *device, const void *address, uint64_t bytes)
{
    return device == NULL ? (void *)(uintptr_t)address
                          : sim_resolve(device, (uintptr_t)address, bytes);
}

static void run_copy(struct sim_work *work, struct sim_failure *failure)
{
    struct copy_work *copy = (struct copy_work *)work;
    void *destination = resolve_or_host(copy->destination_device, copy->destination, copy->bytes);
    const void *source = resolve_or_host(copy->source_device, copy->source, copy->bytes);
    if (destination == NULL || source == NULL) {
        const char *end = destination == NULL ? "destination" : "source";
        const void *address = destination == NULL ? copy->destination : copy->source;
        sim_failure_set(failure, DS_INVALID_ARGUMENT,
                        "copy: the %s, %" PRIu64 " bytes at %p, is not within one allocation", end,
                        copy->bytes, address);
        return;
    }
    // The contract says that the ranges do not overlap; memmove costs nothing where it was broken.
    memmove(destination, source, (size_t)copy->bytes);
}

static DsStatus
memory_copy(DsDevice handle, DsStream stream, const DsCopy *theirs, DsErrorSink *error)
{
    DsStatus status = sim_enter("copy", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL || stream == NULL || theirs == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "copy: the device, stream or copy is null");
    }
    DsCopy asked;
    sim_take(&asked, sizeof asked, theirs, sim_stated_bytes(theirs));
    if (asked.bytes == 0) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "copy: of 0 bytes; leave it out");
    }
    struct sim_device *own = handle->device;
    struct sim_device *destination_device = own;
    struct sim_device *source_device = own;
    switch (asked.direction) {
    case DS_COPY_TO_DEVICE:
        source_device = NULL;
        break;
    case DS_COPY_TO_HOST:
        destination_device = NULL;
        break;
    case DS_COPY_ON_DEVICE:
        source_device = asked.peer != NULL ? asked.peer->device : own;
        break;
    default:
        return sim_fail(error, DS_UNSUPPORTED, "copy: sim knows no direction %u",
                        (unsigned)asked.direction);
    }
    if ((source_device == NULL && asked.source == NULL)
        || (destination_device == NULL && asked.destination == NULL)) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "copy: the host's address is null");
    }
    struct copy_work *copy = calloc(1, sizeof *copy);
    if (copy == NULL) {
        return sim_fail_host_memory(error);
    }
    copy->work.run = run_copy;
    copy->destination_device = destination_device;
    copy->source_device = source_device;
    copy->destination = asked.destination;
    copy->source = asked.source;
    copy->bytes = asked.bytes;
    sim_stream_push(stream, &copy->work, "copy_async");
    return DS_OK;
}

// ---- Fills

struct fill_work {
    struct sim_work work;
    struct sim_device *device;
    void *address;
    uint64_t bytes;
    uint8_t pattern;
};

static void run_fill(struct sim_work *work, struct sim_failure *failure)
{
    struct fill_work *fill = (struct fill_work *)work;
    void *storage = sim_resolve(fill->device, (uintptr_t)fill->address, fill->bytes);
    if (storage == NULL) {
        sim_failure_set(failure, DS_INVALID_ARGUMENT,
                        "fill: %" PRIu64 " bytes at %p are not within one allocation", fill->bytes,
                        fill->address);
        return;
    }
    memset(storage, fill->pattern, (size_t)fill->bytes);
}

static DsStatus memory_fill(DsDevice handle,
                            DsStream stream,
                            void *address,
                            uint8_t pattern,
                            uint64_t bytes,
                            DsErrorSink *error)
{
    DsStatus status = sim_enter("fill", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL || stream == NULL || bytes == 0) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "fill: the device or stream is null, or there are 0 bytes to fill");
    }
    struct fill_work *fill = calloc(1, sizeof *fill);
    if (fill == NULL) {
        return sim_fail_host_memory(error);
    }
    fill->work.run = run_fill;
    fill->device = handle->device;
    fill->address = address;
    fill->bytes = bytes;
    fill->pattern = pattern;
    sim_stream_push(stream, &fill->work, "fill_async");
    return DS_OK;
}

const DsMemoryTable sim_memory_table = {
    .struct_size = sizeof(DsMemoryTable),
    .allocate = memory_allocate,
    .free = memory_free,
    .info = memory_info,
    .copy = memory_copy,
    .fill = memory_fill,
};
