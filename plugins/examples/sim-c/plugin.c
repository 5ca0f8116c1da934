// The entry: the one symbol that the host looks up, and the list of tables.
//
// | table  | file              | what it maps to on real hardware                            |
// |--------|-------------------|-------------------------------------------------------------|
// | device | device.c          | the driver's enumeration and contexts                       |
// | memory | memory.c          | the driver's allocator and copy engines                     |
// | stream | stream.c, event.c | hardware queues; timeline semaphores or events              |
// | op     | ops.c, kernels.c  | kernel launches; here C functions on the stream's thread    |
// | jit    | jit.c             | the vendor's compiler; here one that makes a recipe of text |
//
// Nothing here touches a device or starts a thread: the first call that may is `count`.

#include "sim.h"

// Whoever does not know an extension with this flag must refuse; this plugin knows none at all.
static bool brings_what_we_must_know(const DsExtension *extension)
{
    for (; extension != NULL; extension = extension->next) {
        if (extension->flags & DS_EXTENSION_MUST_UNDERSTAND) {
            return true;
        }
    }
    return false;
}

DsStatus ds_plugin_v1(const DsHost *host, DsPlugin *plugin, DsErrorSink *error)
{
    if (host == NULL || plugin == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "ds_plugin_v1: host or plugin is null");
    }
    DsStatus injected = sim_fault("ds_plugin_v1");
    if (injected != DS_OK) {
        return sim_fail(error, injected, "SIM_FAULT makes ds_plugin_v1 fail");
    }
    DsHost known;
    sim_take(&known, sizeof known, host, sim_stated_bytes(host));
    if (known.min_plugin_minor > DS_ABI_MINOR) {
        return sim_fail(error, DS_INCOMPATIBLE_ABI,
                        "the host accepts plugins of ABI 1.%u and later, this one is 1.%u: build it "
                        "with a newer ds_plugin.h",
                        (unsigned)known.min_plugin_minor, (unsigned)DS_ABI_MINOR);
    }
    if (brings_what_we_must_know(known.extensions)) {
        return sim_fail(error, DS_INCOMPATIBLE_ABI,
                        "the host brings an extension that must be understood, and sim knows none");
    }
    sim_log_to(&known);

    const DsPlugin description = {
        .abi_minor = DS_ABI_MINOR,
        .min_host_minor = 0,
        .panic_strategy = DS_PANIC_NONE,
        .features_offered = DS_FEATURE_HOST_SIGNAL | DS_FEATURE_REFERENCE_FALLBACK,
        .id = sim_str("org.example.sim"),
        .version = sim_str("0.1.0"),
        .device = &sim_device_table,
        .memory = &sim_memory_table,
        .stream = &sim_stream_table,
        .op = &sim_op_table,
        .jit = &sim_jit_table,
    };
    if (!sim_give(plugin, &description, sizeof description)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "ds_plugin_v1: plugin states no struct_size; set it to sizeof(DsPlugin)");
    }
    return DS_OK;
}
