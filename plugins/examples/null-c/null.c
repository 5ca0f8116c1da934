// The smallest plugin that loads: one device, and nothing that can be done with it.
//
// Build: cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden -I<folder of ds_plugin.h> null.c
//        -o libds_example_null.so, on one line.
// Then put the library and plugin.json into a folder on DS_PLUGIN_PATH and run `ds_report`.
// Memory comes next, then streams, then kernels: the example sim-c has all of them, and
// docs/adding-an-accelerator.md of the project the order and the rules.

#include <string.h>

#include "ds_plugin.h"

#define STR(literal) ((DsStr){.data = (literal), .len = sizeof(literal) - 1})

// Tells why: `error` belongs to the caller, may be null, and has room for so many bytes. The host
// puts the accelerator's and the function's name before it.
static DsStatus fail(DsErrorSink *error, DsStatus code, DsStr message)
{
    if (error != NULL && error->struct_size >= sizeof *error) {
        size_t room = error->message != NULL ? error->message_capacity : 0;
        size_t len = message.len < room ? message.len : room;
        error->code = code;
        error->flags = len < message.len ? DS_ERROR_TRUNCATED : 0;
        error->vendor_code = 0;
        error->reason = 0;
        error->a = 0;
        error->b = 0;
        error->message_len = (uint32_t)len;
        if (len > 0) {
            memcpy(error->message, message.data, len);
        }
    }
    return code;
}

// Fills a struct of the host's as far as the host knows it, which is what it states in front.
static DsStatus give(void *theirs, const void *own, size_t own_bytes, DsErrorSink *error)
{
    uint32_t bytes = 0;
    if (theirs != NULL) {
        memcpy(&bytes, theirs, sizeof bytes);
    }
    if (bytes < sizeof bytes) {
        return fail(error, DS_INVALID_ARGUMENT, STR("null, or a struct_size that was not set"));
    }
    bytes = bytes < own_bytes ? bytes : (uint32_t)own_bytes;
    memcpy(theirs, own, bytes);
    memcpy(theirs, &bytes, sizeof bytes);
    return DS_OK;
}

// Yours opens the driver here, and returns DS_UNAVAILABLE with every place it looked at.
static DsStatus count(uint32_t *devices, DsErrorSink *error)
{
    if (devices == NULL) {
        return fail(error, DS_INVALID_ARGUMENT, STR("the place for the count is null"));
    }
    *devices = 1;
    return DS_OK;
}

static DsStatus describe(uint32_t index, DsDeviceInfo *info, DsErrorSink *error)
{
    if (index != 0) {
        return fail(error, DS_NO_DEVICE, STR("null has device 0 only"));
    }
    const DsDeviceInfo description = {
        .numa_node = -1,
        .name = STR("Example Null"),
        .target = STR("null-1"),
        .alignment_bytes = 1,
        .dlpack_type = 12, // DLPack's kDLExtDev
    };
    return give(info, &description, sizeof description, error);
}

// What a handle points to is the plugin's business.
struct DsDeviceObject {
    uint32_t index;
};
static DsDeviceObject the_device;

static DsStatus open_device(uint32_t index, DsDevice *device, DsErrorSink *error)
{
    if (index != 0 || device == NULL) {
        return fail(error, index != 0 ? DS_NO_DEVICE : DS_INVALID_ARGUMENT,
                    STR("null has device 0 only, and needs a place for the handle"));
    }
    *device = &the_device;
    return DS_OK;
}

static void close_device(DsDevice device)
{
    (void)device;
}

static const DsDeviceTable device_table = {
    .struct_size = sizeof device_table,
    .count = count,
    .describe = describe,
    .open = open_device,
    .close = close_device,
};

DsStatus ds_plugin_v1(const DsHost *host, DsPlugin *plugin, DsErrorSink *error)
{
    // Keep the host to write to the log that it offers. What it adds and says must be understood,
    // this plugin does not.
    for (const DsExtension *e = host->extensions; e != NULL; e = e->next) {
        if (e->flags & DS_EXTENSION_MUST_UNDERSTAND) {
            return fail(error, DS_INCOMPATIBLE_ABI, STR("null knows no extension of the host"));
        }
    }
    const DsPlugin description = {
        .abi_minor = DS_ABI_MINOR,
        .id = STR("org.example.null"), // as in plugin.json, like the version
        .version = STR("0.1.0"),
        .device = &device_table,
    };
    return give(plugin, &description, sizeof description, error);
}
