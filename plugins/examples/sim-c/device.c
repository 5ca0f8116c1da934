// Devices: which there are, what they are, and opening them.
//
// On real hardware `count` and `describe` ask the driver, and `open` makes or retains a context.
// Here a device is two mappings: a range of addresses that nobody can touch, which is what the
// host sees, and the storage behind it, which only queued work reaches (memory.c).

#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct sim_device devices[SIM_DEVICES] = {
    {.number = 0, .uuid = "SIM-0", .lock = PTHREAD_MUTEX_INITIALIZER},
    {.number = 1, .uuid = "SIM-1", .lock = PTHREAD_MUTEX_INITIALIZER},
};

// What every function that may touch the "driver" needs first.
static DsStatus first_touch(const char *function, DsErrorSink *error)
{
    sim_watch_fork();
    DsStatus status = sim_enter(function, error);
    if (status != DS_OK) {
        return status;
    }
    const struct sim_settings *settings = sim_settings();
    if (settings->status != DS_OK) {
        return sim_fail(error, settings->status, "%s", settings->problem);
    }
    return DS_OK;
}

static DsStatus device_count(uint32_t *count, DsErrorSink *error)
{
    DsStatus status = first_touch("count", error);
    if (status != DS_OK) {
        return status;
    }
    if (count == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "count: the place for the count is null");
    }
    *count = sim_settings()->visible_count;
    return DS_OK;
}

static DsStatus check_index(const char *function, uint32_t index, DsErrorSink *error)
{
    uint32_t count = sim_settings()->visible_count;
    if (index >= count) {
        return sim_fail(error, DS_NO_DEVICE,
                        "%s: there is no device %u; %u of %d are visible, see SIM_VISIBLE_DEVICES",
                        function, (unsigned)index, (unsigned)count, SIM_DEVICES);
    }
    return DS_OK;
}

static DsStatus device_describe(uint32_t index, DsDeviceInfo *info, DsErrorSink *error)
{
    DsStatus status = first_touch("describe", error);
    if (status == DS_OK) {
        status = check_index("describe", index, error);
    }
    if (status != DS_OK) {
        return status;
    }
    // No flag is set. Without DS_DEVICE_HOST_VISIBLE_MEMORY the host never follows an address, and
    // without DS_DEVICE_SYNCHRONOUS it waits for streams.
    const DsDeviceInfo description = {
        .numa_node = -1,
        .name = sim_str("Example Sim"),
        .target = sim_str(SIM_TARGET),
        .driver_version = sim_str("1.0"),
        .uuid = sim_str(devices[sim_settings()->visible[index]].uuid),
        .dtypes = UINT64_C(1) << DS_DTYPE_F32 | UINT64_C(1) << DS_DTYPE_F16
            | UINT64_C(1) << DS_DTYPE_BF16,
        .memory_bytes = sim_settings()->memory_bytes,
        .alignment_bytes = SIM_ALIGNMENT_BYTES,
        .compute_units = 1,
        .dlpack_type = 12, // DLPack's kDLExtDev
    };
    if (!sim_give(info, &description, sizeof description)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "describe: info is null or states no struct_size");
    }
    return DS_OK;
}

// Maps a device's memory when it is opened for the first time; it stays until the process ends.
static DsStatus map_memory(struct sim_device *device, DsErrorSink *error)
{
    if (device->addresses != NULL) {
        return DS_OK;
    }
    size_t bytes = (size_t)sim_settings()->memory_bytes;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *addresses = mmap(NULL, bytes, PROT_NONE, flags, -1, 0);
    void *storage = MAP_FAILED;
    if (addresses != MAP_FAILED) {
        storage = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    if (storage == MAP_FAILED) {
        int vendor_code = errno;
        if (addresses != MAP_FAILED) {
            munmap(addresses, bytes);
        }
        return sim_fail_with(error, (struct sim_details){.code = DS_INTERNAL, .vendor_code = vendor_code},
                             "open: mmap of %zu bytes for %s failed: %s; lower SIM_MEMORY_BYTES",
                             bytes, device->uuid, strerror(vendor_code));
    }
    device->addresses = addresses;
    device->storage = storage;
    return DS_OK;
}

static DsStatus device_open(uint32_t index, DsDevice *handle, DsErrorSink *error)
{
    DsStatus status = first_touch("open", error);
    if (status == DS_OK) {
        status = check_index("open", index, error);
    }
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "open: the place for the handle is null");
    }
    struct sim_device *device = &devices[sim_settings()->visible[index]];
    pthread_mutex_lock(&device->lock);
    status = map_memory(device, error);
    pthread_mutex_unlock(&device->lock);
    if (status != DS_OK) {
        return status;
    }
    DsDevice opened = calloc(1, sizeof *opened);
    if (opened == NULL) {
        return sim_fail_host_memory(error);
    }
    opened->device = device;
    *handle = opened;
    return DS_OK;
}

static void device_close(DsDevice handle)
{
    free(handle);
}

static DsStatus device_synchronize(DsDevice handle, DsErrorSink *error)
{
    DsStatus status = sim_enter("synchronize", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "synchronize: the device is null");
    }
    return sim_streams_drain(handle->device, error);
}

const DsDeviceTable sim_device_table = {
    .struct_size = sizeof(DsDeviceTable),
    .count = device_count,
    .describe = device_describe,
    .open = device_open,
    .close = device_close,
    .synchronize = device_synchronize,
};
