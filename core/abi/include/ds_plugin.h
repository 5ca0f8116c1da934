// SPDX-License-Identifier: Apache-2.0
// Generated from the crate ds-abi by `cargo xtask headers`; edit that crate instead.
//
// The C boundary between the host and accelerator plugins: `repr(C)` data and function tables.
// No logic, no allocation, no dependencies; `include/ds_plugin.h` is generated from this crate.
//
// # Rules of the boundary
//
// 1. A plugin exports exactly one symbol per major version, `DS_PLUGIN_ENTRY_V1`.
// 2. Every struct starts with `struct_size`, set by whoever owns the memory to the size it was
//    compiled with. A callee reads and writes only inside that size; a field counts when it lies
//    wholly inside. Fields are only ever appended; zero in a field that an older side did not know
//    means the old behaviour, and what a field documented as zero holds is ignored. Structs that
//    start without a size are frozen.
// 3. Arrays of structs that can grow carry the stride between elements; arrays without one hold
//    numbers, pointers or frozen structs.
// 4. Both sides state the range of minors they accept, and feature bits; nothing is compared for
//    equality but the major.
// 5. Every function returns a `DsStatus` and takes a nullable, caller-owned `DsErrorSink`.
//    Nothing unwinds across the boundary.
// 6. Strings are UTF-8 with a length. Strings in structs that a plugin fills live as long as the
//    process, because plugins are never unloaded; strings in arguments live for the call.
// 7. Enumerations are `u32` open sets: an unknown value is not an error by itself.
// 8. A handle goes back only to the plugin that made it. Calls on different handles may run at the
//    same time; each function says what holds for one handle.
// 9. Device memory is an address that only its plugin may use. Adding an offset within the
//    allocation is allowed; reading through it is not, unless the device says
//    `DS_DEVICE_HOST_VISIBLE_MEMORY`.

#ifndef DS_PLUGIN_H
#define DS_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DS_PLUGIN_EXPORT __declspec(dllexport)
#else
#define DS_PLUGIN_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// -------------------------------------------------------------------------------------------------
// Statuses, the error sink and strings: how one side tells the other what went wrong.

// What a call returns: `DS_OK` or one of the codes below. An open set: treat an unknown
// non-zero code as `DS_INTERNAL`.
typedef int32_t DsStatus;

// The call did what it says.
#define DS_OK 0

// An argument breaks a rule that the message names; the caller is at fault.
#define DS_INVALID_ARGUMENT 1

// The device or driver cannot do this, and never will; the message says why.
#define DS_UNSUPPORTED 2

// The plugin does not provide this function (the host's stubs return it with the slot's name).
#define DS_UNIMPLEMENTED 3

// A library or driver that the plugin needs was not found; the message names every place tried.
#define DS_UNAVAILABLE 4

// The driver answers, but there is no such device.
#define DS_NO_DEVICE 5

// The allocation does not fit; `a` holds the bytes asked for and `b` the bytes free.
#define DS_OUT_OF_MEMORY 6

// The device is gone or its context is unusable; nothing on it will work again.
#define DS_DEVICE_LOST 7

// The point in time has not been reached yet. Only `stream_query` answers so. It is never how queued
// work failed: a host that asks whether that is over would ask for ever.
#define DS_NOT_READY 8

// The wait ended before the point was reached.
#define DS_TIMEOUT 9

// A file or socket operation failed; `vendor_code` is the `errno`.
#define DS_IO 10

// A compiler ran and refused the source; the log has its words.
#define DS_BUILD_FAILED 11

// The two sides cannot work together; the message names the rule.
#define DS_INCOMPATIBLE_ABI 12

// A kernel refuses this signature; `reason` and the message name the constraint.
#define DS_CONSTRAINT 13

// An artefact was made for something else (target, version); build it again.
#define DS_STALE 14

// The plugin broke its own contract, for instance it panicked.
#define DS_PLUGIN_BUG 15

// Anything that has no better code.
#define DS_INTERNAL 16

// Work was given up because work before it failed.
#define DS_CANCELLED 17

// The process is ending; no new work is taken.
#define DS_SHUTTING_DOWN 18

// The call came from a child of `fork`, where devices do not work.
#define DS_FORKED 19

// The process is out of host memory; freeing device memory would not help.
#define DS_OUT_OF_HOST_MEMORY 20

// The kernel is for another op.
#define DS_REASON_OP 0

// The device lacks a feature of the target.
#define DS_REASON_TARGET 1

// The value of a static attribute.
#define DS_REASON_ATTRIBUTES 2

// A dtype.
#define DS_REASON_DTYPES 3

// A rank.
#define DS_REASON_RANK 4

// An extent.
#define DS_REASON_DIMS 5

// A layout.
#define DS_REASON_LAYOUT 6

// An alignment.
#define DS_REASON_ALIGNMENT 7

// The number of elements.
#define DS_REASON_MAX_ELEMENTS 8

// There are no elements.
#define DS_REASON_ZERO_SIZE 9

// A written tensor is the memory of another one.
#define DS_REASON_IN_PLACE 10

// The kernel has no score for this size.
#define DS_REASON_SCORE 11

// Trying the same call again may work.
#define DS_ERROR_RETRYABLE 1

// The device is lost.
#define DS_ERROR_DEVICE_LOST (1 << 1)

// The stream takes no more work.
#define DS_ERROR_STREAM_POISONED (1 << 2)

// The message was longer than the sink.
#define DS_ERROR_TRUNCATED (1 << 3)

// Where a callee describes a failure. Owned by the caller, valid for the call, nothing to free.
//
// The caller sets `struct_size`, `message` and `message_capacity`; the callee writes the rest, and
// at most `message_capacity` bytes of UTF-8 without a terminating zero.
typedef struct DsErrorSink {
    // Size of this struct as its owner knows it, in bytes.
    uint32_t struct_size;
    // The same code that the call returns.
    DsStatus code;
    // The vendor's own number, 0 if there is none.
    int32_t vendor_code;
    // `DS_ERROR_*` bits.
    uint32_t flags;
    // First number of the failure; its meaning belongs to the code.
    uint64_t a;
    // Second number of the failure; its meaning belongs to the code.
    uint64_t b;
    // Which kind of constraint failed, with `DS_CONSTRAINT`: one of `DS_REASON_*`.
    uint32_t reason;
    // Bytes of `message` that were written.
    uint32_t message_len;
    // Capacity of `message`, in bytes.
    uint32_t message_capacity;
    // Zero.
    uint32_t reserved;
    // The caller's buffer; may be null when the capacity is 0.
    char *message;
} DsErrorSink;

// A UTF-8 string with a length and no terminating zero; `data` may be null when `len` is 0.
typedef struct DsStr {
    // First byte.
    const char *data;
    // Length in bytes.
    size_t len;
} DsStr;

// Bytes with a length, such as a source file or an artefact.
typedef struct DsBytes {
    // First byte; may be null when `len` is 0.
    const uint8_t *data;
    // Length in bytes.
    size_t len;
} DsBytes;

// Head of an extension: a struct that only some vendors know, chained from `DsHost` or
// `DsPlugin`.
typedef struct DsExtension {
    // Size of the whole extension, head included, in bytes.
    uint32_t struct_size;
    // `DS_EXTENSION_*` bits.
    uint32_t flags;
    // First 16 bytes of the BLAKE3 hash of the extension's name, such as `com.example.power/1`.
    uint8_t type_id[16];
    // The next extension, or null.
    const struct DsExtension *next;
} DsExtension;

// A side that does not know this extension must refuse the other.
#define DS_EXTENSION_MUST_UNDERSTAND 1

// -------------------------------------------------------------------------------------------------
// Tensors (DLPack inside a sized wrapper), values, and signatures.

// Index of a dtype in dtype masks (`DsDeviceInfo.dtypes`).
#define DS_DTYPE_F32 0

// IEEE binary16.
#define DS_DTYPE_F16 1

// bfloat16.
#define DS_DTYPE_BF16 2

// IEEE binary64.
#define DS_DTYPE_F64 3

// Signed 8-bit integer.
#define DS_DTYPE_I8 4

// Unsigned 8-bit integer.
#define DS_DTYPE_U8 5

// Signed 16-bit integer.
#define DS_DTYPE_I16 6

// Signed 32-bit integer.
#define DS_DTYPE_I32 7

// Signed 64-bit integer.
#define DS_DTYPE_I64 8

// Boolean in a byte, 0 or 1.
#define DS_DTYPE_BOOL 9

// OCP FP8 with 4 exponent bits.
#define DS_DTYPE_F8E4M3 10

// OCP FP8 with 5 exponent bits.
#define DS_DTYPE_F8E5M2 11

#ifndef DLPACK_DLPACK_H_ // dlpack.h, included before, has it
// DLPack's element type. Codes are DLPack's: 0 int, 1 uint, 2 float, 4 bfloat, 6 bool, 10
// `float8_e4m3fn`, 12 `float8_e5m2`.
typedef struct DLDataType {
    // DLPack's type code.
    uint8_t code;
    // Bits of one lane.
    uint8_t bits;
    // Lanes; 1 for all that this boundary knows.
    uint16_t lanes;
} DLDataType;
#endif

#ifndef DLPACK_DLPACK_H_ // dlpack.h, included before, has it
// DLPack's device.
typedef struct DLDevice {
    // DLPack's device type, such as 1 for CPU and 12 for an extension device.
    int32_t device_type;
    // Index among the devices of that type.
    int32_t device_id;
} DLDevice;
#endif

#ifndef DLPACK_DLPACK_H_ // dlpack.h, included before, has it
// DLPack's tensor, field for field as in DLPack 1.x.
typedef struct DLTensor {
    // Start of the data; an address of the device's memory.
    void *data;
    // Where it lies.
    DLDevice device;
    // Number of dimensions.
    int32_t ndim;
    // Element type.
    DLDataType dtype;
    // `ndim` extents, in elements.
    const int64_t *shape;
    // `ndim` strides, in elements; never null across this boundary.
    const int64_t *strides;
    // Bytes from `data` to the first element.
    uint64_t byte_offset;
} DLTensor;
#endif

// A tensor of a launch.
typedef struct DsTensor {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // The tensor itself.
    DLTensor dl;
} DsTensor;

// The eight bytes of a `DsValue`.
typedef union DsValueBits {
    // For `DS_VALUE_BOOL` and `DS_VALUE_I64`.
    int64_t integer;
    // For `DS_VALUE_F64`.
    double real;
} DsValueBits;

// The value is `integer`, 0 or 1.
#define DS_VALUE_BOOL 1

// The value is `integer`.
#define DS_VALUE_I64 2

// The value is `real`.
#define DS_VALUE_F64 3

// A scalar: a static attribute of a signature, or a launch scalar.
typedef struct DsValue {
    // `DS_VALUE_*`.
    uint32_t kind;
    // Zero.
    uint32_t reserved;
    // The value that `kind` says.
    DsValueBits value;
} DsValue;

// Elements lie one after another in row-major order.
#define DS_LAYOUT_CONTIGUOUS 0

// Rows of the last dimension are contiguous, other strides are free but positive.
#define DS_LAYOUT_ROWS 1

// Any strides.
#define DS_LAYOUT_STRIDED 2

// Extent that a prepared kernel must take as it comes.
#define DS_DIM_DYNAMIC (-1)

// What a signature says of one tensor: everything but its address.
typedef struct DsTensorSignature {
    // Element type.
    DLDataType dtype;
    // Number of dimensions.
    int32_t ndim;
    // `ndim` extents, `DS_DIM_DYNAMIC` where it may differ from launch to launch.
    const int64_t *shape;
    // `ndim` strides in elements; for dynamic extents only the layout holds.
    const int64_t *strides;
    // `DS_LAYOUT_*`.
    uint8_t layout;
    // Binary logarithm of the alignment of the first element in bytes, at most 12.
    uint8_t alignment_log2;
    // Zero.
    uint16_t reserved;
    // Index of the tensor of this call whose memory this one is, or -1.
    int32_t alias_of;
} DsTensorSignature;

// Which tensors serve one argument of the schema: a list has any number, a missing optional has
// none.
typedef struct DsArgument {
    // Index of its first tensor.
    uint32_t first;
    // How many tensors.
    uint32_t count;
} DsArgument;

// A call without addresses and launch scalars: what a kernel is prepared for.
typedef struct DsSignature {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // The op's name.
    DsStr op;
    // First 16 bytes of the BLAKE3 hash of the schema's canonical text.
    uint8_t schema_hash[16];
    // Arguments in schema order, inputs before outputs; scalars have none.
    const DsArgument *arguments;
    // How many arguments.
    uint32_t argument_count;
    // How many tensors.
    uint32_t tensor_count;
    // The tensors, in argument order.
    const DsTensorSignature *tensors;
    // Bytes from one element of `tensors` to the next.
    uint32_t tensor_stride;
    // How many static attributes.
    uint32_t attribute_count;
    // Static attributes in schema order.
    const DsValue *attributes;
} DsSignature;

// -------------------------------------------------------------------------------------------------
// The device table: which devices there are and what they are.

// An open device, owned by its plugin.
typedef struct DsDeviceObject DsDeviceObject;

// Handle of an open device. Every call on it may come from any thread at any time.
typedef DsDeviceObject *DsDevice;

// Every operation is finished when its call returns (DeepSpeed's `is_synchronized_device`).
#define DS_DEVICE_SYNCHRONOUS 1

// Time with the host's clock rather than events (DeepSpeed's `use_host_timers`).
#define DS_DEVICE_HOST_TIMERS (1 << 1)

// The runtime orders producers and consumers across streams by itself
// (DeepSpeed's `resolves_data_dependency`).
#define DS_DEVICE_RESOLVES_DATA_DEPENDENCY (1 << 2)

// The runtime throttles when memory is short (DeepSpeed's `handles_memory_backpressure`).
#define DS_DEVICE_HANDLES_MEMORY_BACKPRESSURE (1 << 3)

// The host may read and write device memory through its address.
#define DS_DEVICE_HOST_VISIBLE_MEMORY (1 << 4)

// The device's memory is the host's own: a copy to it gains nothing.
#define DS_DEVICE_UNIFIED_MEMORY (1 << 5)

// Triton kernels run on it (DeepSpeed's `is_triton_supported`).
#define DS_DEVICE_TRITON (1 << 6)

// What a device is. Constant for the life of the process.
typedef struct DsDeviceInfo {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // NUMA node that the device hangs on, -1 if unknown.
    int32_t numa_node;
    // Marketing name, as the vendor writes it.
    DsStr name;
    // What artefacts are built for, such as `sm_90` or `x86-64+avx512f`. The plugin's own grammar;
    // the host only compares it and puts it into cache keys.
    DsStr target;
    // Version of the driver, empty if there is none.
    DsStr driver_version;
    // Vendor's unique name of the physical device (UUID, MIG name), empty if there is none.
    DsStr uuid;
    // PCI address such as `0000:65:00.0`, empty if there is none.
    DsStr pci;
    // `DS_DEVICE_*` bits.
    uint64_t flags;
    // Bit `1 << DS_DTYPE_*` for each dtype that arithmetic can use.
    uint64_t dtypes;
    // Memory in all, in bytes.
    uint64_t memory_bytes;
    // Alignment that every allocation has, in bytes; a power of two.
    uint32_t alignment_bytes;
    // Compute units (cores, streaming multiprocessors), 0 if unknown.
    uint32_t compute_units;
    // Index of the DLPack device type, such as 1 for CPU.
    int32_t dlpack_type;
    // Zero.
    uint32_t reserved;
} DsDeviceInfo;

// Devices. Every slot but `synchronize` is required.
typedef struct DsDeviceTable {
    // Size of this table as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Counts the devices that the vendor's visibility variables leave. The first call that may
    // touch the driver. `DS_UNAVAILABLE` when the driver library is not there, `DS_NO_DEVICE` or a
    // count of 0 when it is there without a device.
    DsStatus (*count)(uint32_t *count, DsErrorSink *error);
    // Describes device `index` without opening it.
    DsStatus (*describe)(uint32_t index, DsDeviceInfo *info, DsErrorSink *error);
    // Opens device `index`. Opening twice gives two handles of one device.
    DsStatus (*open)(uint32_t index, DsDevice *device, DsErrorSink *error);
    // Closes a handle. Everything made from it has been destroyed before.
    void (*close)(DsDevice device);
    // Waits until all work given to the device is done.
    DsStatus (*synchronize)(DsDevice device, DsErrorSink *error);
} DsDeviceTable;

// -------------------------------------------------------------------------------------------------
// The stream table: in-order queues, and events as points on timelines.

// A queue of work, owned by its plugin.
typedef struct DsStreamObject DsStreamObject;

// A timeline: a counter that only grows, owned by its plugin.
typedef struct DsEventObject DsEventObject;

// Handle of a stream. The host makes calls that queue work on one stream one at a time; waits and
// queries may come from any thread.
typedef DsStreamObject *DsStream;

// Handle of an event. Any call from any thread.
typedef DsEventObject *DsEvent;

// Wait without limit.
#define DS_FOREVER UINT64_MAX

// The stream in which work runs when none is named; one per device.
#define DS_STREAM_DEFAULT 1

// Called once when a point is reached, or when it never will be. `status` is `DS_OK`, the failure of
// the work before the point, or `DS_CANCELLED` when the event was destroyed first. Runs on a thread
// of the plugin, on one that signals, or inside the call that registers it. It must not block; it
// may signal, query and register.
typedef void (*DsEventCallback)(void *user, DsStatus status);

// How far a timeline has come.
typedef struct DsEventState {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // `DS_OK`, or why values above `value` will never be reached; never `DS_NOT_READY`.
    DsStatus status;
    // The highest value reached.
    uint64_t value;
    // When it was reached: nanoseconds on a clock of the device that never goes back; 0 if the
    // device does not tell.
    uint64_t time_ns;
} DsEventState;

// Streams and events. Required: all but `stream_native`, `stream_wrap` and `event_on_ready`.
//
// A failure of queued work surfaces on every point recorded after it, and on `stream_synchronize`. It
// stays: the stream does no more work. A call that queues more may return the failure or `DS_OK`.
// Its status is any but `DS_NOT_READY`; a driver's error of that name becomes `DS_INTERNAL`.
typedef struct DsStreamTable {
    // Size of this table as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Makes a stream; `flags` are `DS_STREAM_*`. The host makes the default one once a device.
    DsStatus (*stream_create)(DsDevice device,
                              uint32_t flags,
                              DsStream *stream,
                              DsErrorSink *error);
    // Gives the handle up, without waiting. Work that is queued still happens.
    void (*stream_destroy)(DsStream stream);
    // Waits until everything queued so far is done; returns the first failure, which is never
    // `DS_NOT_READY`.
    DsStatus (*stream_synchronize)(DsStream stream, DsErrorSink *error);
    // `DS_NOT_READY` while anything is pending, then `DS_OK` or the first failure.
    DsStatus (*stream_query)(DsStream stream, DsErrorSink *error);
    // Gives the vendor's own handle (`CUstream`, `hipStream_t` ...).
    DsStatus (*stream_native)(DsStream stream, void **native, DsErrorSink *error);
    // Makes a stream around a vendor's handle that somebody else owns.
    DsStatus (*stream_wrap)(DsDevice device,
                            void *native,
                            DsStream *stream,
                            DsErrorSink *error);
    // Makes a timeline that stands at 0.
    DsStatus (*event_create)(DsDevice device, DsEvent *event, DsErrorSink *error);
    // Gives the handle up. Records and waits that are queued already still happen: the plugin keeps
    // what they need until then. Callbacks that still wait are called with `DS_CANCELLED`.
    void (*event_destroy)(DsEvent event);
    // Queues: when the work so far is done, raise the timeline to `value`. A value that it has
    // reached changes nothing.
    DsStatus (*event_record)(DsStream stream,
                             DsEvent event,
                             uint64_t value,
                             DsErrorSink *error);
    // Queues: later work waits until the timeline stands at `value`. If it never will, later work
    // on the stream fails with that status.
    DsStatus (*event_wait)(DsStream stream, DsEvent event, uint64_t value, DsErrorSink *error);
    // Raises the timeline from the host, at once; a value that it has reached changes nothing. A
    // `status` other than `DS_OK` fails it: `value` is ignored, the timeline stays where it is for
    // good, and whoever waits for more than that gets the status.
    DsStatus (*event_signal)(DsEvent event,
                             uint64_t value,
                             DsStatus status,
                             DsErrorSink *error);
    // Tells how far the timeline is, without waiting.
    DsStatus (*event_query)(DsEvent event, DsEventState *state, DsErrorSink *error);
    // Blocks the calling thread until the timeline stands at `value`: `DS_OK`, `DS_TIMEOUT`, or
    // the failure that keeps it from getting there, which is never `DS_NOT_READY`.
    DsStatus (*event_synchronize)(DsEvent event,
                                  uint64_t value,
                                  uint64_t timeout_ns,
                                  DsErrorSink *error);
    // Calls `callback` when the timeline stands at `value`, perhaps before this returns.
    DsStatus (*event_on_ready)(DsEvent event,
                               uint64_t value,
                               DsEventCallback callback,
                               void *user,
                               DsErrorSink *error);
} DsStreamTable;

// -------------------------------------------------------------------------------------------------
// The memory table: raw allocation and copies. Caching, statistics and limits are the host's.

// Memory of the device itself.
#define DS_MEMORY_DEVICE 0

// Page-locked host memory that the device reaches without staging.
#define DS_MEMORY_PINNED 1

// Memory that host and device both reach by the same address.
#define DS_MEMORY_SHARED 2

// From host memory to the device's.
#define DS_COPY_TO_DEVICE 0

// From the device's memory to the host's.
#define DS_COPY_TO_HOST 1

// Between two places that devices of this plugin own.
#define DS_COPY_ON_DEVICE 2

// How much memory a device has, in bytes.
typedef struct DsMemoryInfo {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // In all.
    uint64_t total_bytes;
    // Free for this process right now.
    uint64_t free_bytes;
} DsMemoryInfo;

// One copy of bytes. The ranges do not overlap.
typedef struct DsCopy {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // `DS_COPY_*`.
    uint32_t direction;
    // Where to.
    void *destination;
    // Where from.
    const void *source;
    // How many bytes; never 0.
    uint64_t bytes;
    // Where `source` lies when it is on another device of the same plugin, else null. The stream
    // belongs to the device that `destination` is on.
    DsDevice peer;
} DsCopy;

// Memory. Required: `allocate`, `free`, `info`, `copy`.
typedef struct DsMemoryTable {
    // Size of this table as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Allocates `bytes` (never 0) of `kind` (`DS_MEMORY_*`), aligned to `alignment` (a power of
    // two) or better. `DS_OUT_OF_MEMORY` leaves the device usable.
    DsStatus (*allocate)(DsDevice device,
                         uint64_t bytes,
                         uint64_t alignment,
                         uint32_t kind,
                         void **address,
                         DsErrorSink *error);
    // Frees what `allocate` gave, with the same `bytes` and `kind`. No work that uses it is pending.
    DsStatus (*free)(DsDevice device,
                     void *address,
                     uint64_t bytes,
                     uint32_t kind,
                     DsErrorSink *error);
    // Tells how much memory there is.
    DsStatus (*info)(DsDevice device, DsMemoryInfo *info, DsErrorSink *error);
    // Queues a copy on `stream`. Host memory stays valid until the stream has passed the copy.
    DsStatus (*copy)(DsDevice device,
                     DsStream stream,
                     const DsCopy *copy,
                     DsErrorSink *error);
    // Queues a fill of `bytes` bytes with `pattern` on `stream`.
    DsStatus (*fill)(DsDevice device,
                     DsStream stream,
                     void *address,
                     uint8_t pattern,
                     uint64_t bytes,
                     DsErrorSink *error);
} DsMemoryTable;

// -------------------------------------------------------------------------------------------------
// The jit table: what to build, with what, and how to load it. The host keys, runs, validates and
// caches builds; a plugin only describes them.

// A loaded artefact, owned by its plugin and never unloaded.
typedef struct DsModuleObject DsModuleObject;

// Handle of a loaded artefact. Any call from any thread.
typedef DsModuleObject *DsModule;

// The toolchain is a program that the host runs in a child process.
#define DS_TOOLCHAIN_PROGRAM 0

// The toolchain is a library that the plugin calls (`DsJitTable.compile`).
#define DS_TOOLCHAIN_IN_PROCESS 1

// One way to make artefacts.
typedef struct DsToolchain {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // `DS_TOOLCHAIN_*`.
    uint32_t kind;
    // Name, such as `cc` or `nvrtc`.
    DsStr name;
    // For a program: names to look for on the search path, best first, separated by blanks. A
    // variable written `$CC` stands for its value.
    DsStr programs;
    // For a program: arguments that print its version, separated by blanks.
    // For a library: its version and path, or empty when it was not found.
    DsStr version;
    // How to get it, in a sentence for the user, such as `apt install gcc`.
    DsStr hint;
} DsToolchain;

// A source file of a build.
typedef struct DsSource {
    // File name in the build folder, without folders.
    DsStr name;
    // Its text.
    DsBytes content;
} DsSource;

// What one build needs. All of it data, and all of it part of the cache key.
typedef struct DsBuildRequest {
    // Size of this struct as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // Name of the toolchain.
    DsStr toolchain;
    // Source files; the host writes them into an empty folder before the build.
    const DsSource *sources;
    // How many source files.
    uint32_t source_count;
    // Bytes from one element of `sources` to the next.
    uint32_t source_stride;
    // Arguments in order; for a program its command line, run in the build folder.
    const DsStr *arguments;
    // How many arguments.
    uint32_t argument_count;
    // Zero.
    uint32_t reserved;
    // Name of the file that the build makes, such as `rms_norm.so`.
    DsStr output;
} DsBuildRequest;

// Receives a build request; its pointers live for the call.
typedef DsStatus (*DsRequestVisitor)(void *user, const DsBuildRequest *request);

// Receives bytes (an artefact, a piece of a log); they live for the call.
typedef DsStatus (*DsBytesVisitor)(void *user, DsBytes bytes);

// A built artefact.
typedef struct DsArtefact {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // Name of the kernel that it is for.
    DsStr kernel;
    // Absolute path of the file.
    DsStr path;
    // Its bytes; always given.
    DsBytes content;
} DsArtefact;

// Builds. Required: `toolchain_count`, `toolchain`, `request`, `load`; `compile` when a toolchain
// is in-process.
typedef struct DsJitTable {
    // Size of this table as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Counts the toolchains, best first.
    DsStatus (*toolchain_count)(uint32_t *count, DsErrorSink *error);
    // Describes toolchain `index`.
    DsStatus (*toolchain)(uint32_t index, DsToolchain *toolchain, DsErrorSink *error);
    // Describes the build that `kernel` needs for `signature` on `target`, without a device.
    // Visits once. A kernel whose artefact does not depend on the signature takes null.
    // An empty kernel name asks for the smallest build that proves the toolchain works for the
    // target (a smoke compile).
    DsStatus (*request)(DsStr kernel,
                        const DsSignature *signature,
                        DsStr target,
                        DsRequestVisitor visit,
                        void *user,
                        DsErrorSink *error);
    // Runs an in-process toolchain on a request; gives the artefact's bytes and the log in any
    // number of pieces each.
    DsStatus (*compile)(const DsBuildRequest *request,
                        DsStr target,
                        DsBytesVisitor artefact,
                        DsBytesVisitor log,
                        void *user,
                        DsErrorSink *error);
    // Loads an artefact. `DS_STALE` when it was made for something else.
    DsStatus (*load)(DsDevice device,
                     const DsArtefact *artefact,
                     DsModule *module,
                     DsErrorSink *error);
} DsJitTable;

// -------------------------------------------------------------------------------------------------
// The op table: prepare a kernel for a signature, then launch it with one indirect call.

// A kernel ready to run, owned by its plugin.
typedef struct DsPreparedObject DsPreparedObject;

// Handle of a prepared kernel. It may be launched on several streams at the same time.
typedef DsPreparedObject *DsPreparedHandle;

// One kernel call of what is being prepared.
typedef struct DsNode {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // Name of the kernel, as in the manifest.
    DsStr kernel;
    // What it is called with.
    const DsSignature *signature;
    // The loaded artefact, null for a kernel that needs none.
    DsModule module;
} DsNode;

// What `prepare` gives back.
typedef struct DsPrepared {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // Handle to launch and release.
    DsPreparedHandle handle;
    // Workspace that each launch needs, in bytes.
    uint64_t workspace_bytes;
    // Alignment of the workspace, in bytes; a power of two, or 0 when none is needed.
    uint64_t workspace_alignment;
} DsPrepared;

// One launch.
typedef struct DsLaunch {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t flags;
    // Where to queue it.
    DsStream stream;
    // The tensors, in the signature's order. Shape and stride arrays live for the call only.
    const DsTensor *tensors;
    // How many tensors.
    uint32_t tensor_count;
    // Bytes from one element of `tensors` to the next.
    uint32_t tensor_stride;
    // Launch scalars in schema order.
    const DsValue *scalars;
    // How many launch scalars.
    uint32_t scalar_count;
    // Zero.
    uint32_t reserved;
    // Workspace of at least the size that `prepare` asked for; device memory.
    void *workspace;
    // Its size, in bytes.
    uint64_t workspace_bytes;
    // Number that ties this launch to traces and errors.
    uint64_t correlation;
} DsLaunch;

// Ops. Required: `prepare`, `launch`, `release`. A kernel never allocates: outputs and workspace
// come from the caller.
typedef struct DsOpTable {
    // Size of this table as the plugin knows it, in bytes.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Lowers the score that the manifest gives `kernel` for this signature, or leaves it; a kernel
    // that its constraints admit stays admissible.
    DsStatus (*refine)(DsDevice device,
                       DsStr kernel,
                       const DsSignature *signature,
                       int32_t *score,
                       DsErrorSink *error);
    // Prepares a list of kernel calls; today the list has one node.
    DsStatus (*prepare)(DsDevice device,
                        const DsNode *nodes,
                        uint32_t node_count,
                        uint32_t node_stride,
                        DsPrepared *prepared,
                        DsErrorSink *error);
    // Queues a prepared kernel. The hot path.
    DsStatus (*launch)(DsPreparedHandle prepared,
                       const DsLaunch *launch,
                       DsErrorSink *error);
    // Releases a prepared kernel. No launch of it is pending.
    void (*release)(DsPreparedHandle prepared);
} DsOpTable;

// -------------------------------------------------------------------------------------------------
// The one exported symbol and what the two sides tell each other through it.

// The host signals timeline points itself and waits on them (`DsStreamTable`).
#define DS_FEATURE_HOST_SIGNAL 1

// The host runs toolchains that are programs (`DsJitTable`).
#define DS_FEATURE_BUILD_PROGRAMS (1 << 1)

// The host runs reference implementations through copies to and from the device.
#define DS_FEATURE_REFERENCE_FALLBACK (1 << 2)

// Log levels of `DsHost.log`.
#define DS_LOG_ERROR 1

// Something the user should know, and can go on with.
#define DS_LOG_WARN 2

// What happened, in a line.
#define DS_LOG_INFO 3

// For who debugs the plugin.
#define DS_LOG_DEBUG 4

// What the host offers a plugin. Lives as long as the process.
typedef struct DsHost {
    // Size of this struct as the host knows it, in bytes.
    uint32_t struct_size;
    // The host's `DS_ABI_MINOR`.
    uint32_t abi_minor;
    // The oldest plugin minor that the host accepts.
    uint32_t min_plugin_minor;
    // Zero.
    uint32_t reserved;
    // `DS_FEATURE_*` bits that the host has.
    uint64_t features;
    // Chain of extensions, or null.
    const DsExtension *extensions;
    // Passed back in each call below.
    void *context;
    // Writes one line to the host's log. Any thread, any time after the entry was called.
    void (*log)(void *context, uint32_t level, DsStr message);
} DsHost;

// The plugin does not say; taken for C code that never unwinds.
#define DS_PANIC_NONE 0

// Panics unwind, and the plugin catches them at each entry.
#define DS_PANIC_UNWIND 1

// Panics abort the process; the host refuses such a plugin.
#define DS_PANIC_ABORT 2

// What a plugin is and does. Tables stay valid for the life of the process.
typedef struct DsPlugin {
    // In: the host's size. Out: how many bytes the plugin filled.
    uint32_t struct_size;
    // The minor that the plugin was compiled with.
    uint32_t abi_minor;
    // The oldest host minor that the plugin accepts.
    uint32_t min_host_minor;
    // `DS_PANIC_*`.
    uint32_t panic_strategy;
    // `DS_FEATURE_*` bits without which the plugin cannot work.
    uint64_t features_required;
    // `DS_FEATURE_*` bits that the plugin makes use of when they are there.
    uint64_t features_offered;
    // Chain of extensions, or null.
    const DsExtension *extensions;
    // The manifest's `id`, such as `org.example.sim`.
    DsStr id;
    // The manifest's `version`.
    DsStr version;
    // Devices; the one table that every plugin has.
    const DsDeviceTable *device;
    // Memory, or null.
    const DsMemoryTable *memory;
    // Streams and timeline events, or null.
    const DsStreamTable *stream;
    // Op launch, or null.
    const DsOpTable *op;
    // Builds on demand, or null.
    const DsJitTable *jit;
    // Reserved for collectives: null.
    const void *comm;
    // Reserved for graph capture: null.
    const void *graph;
} DsPlugin;

// Major version of this boundary; the entry symbol carries it.
#define DS_ABI_MAJOR 1

// Minor version of this boundary: grows when fields or functions are appended.
#define DS_ABI_MINOR 0

// Signature of `ds_plugin_v1`.
//
// The host zeroes `plugin` and sets its `struct_size`; the plugin fills it within that size and
// sets `struct_size` to what it filled. The entry may not touch a device, start a thread, or
// change the process (environment, signal handlers, locale). Called once per process.
typedef DsStatus (*DsPluginEntry)(const DsHost *host,
                                  DsPlugin *plugin,
                                  DsErrorSink *error);

// Name of the entry symbol of major 1.
#define DS_PLUGIN_ENTRY_V1 "ds_plugin_v1"

// The entry of a plugin; see DsPluginEntry.
DS_PLUGIN_EXPORT DsStatus ds_plugin_v1(const DsHost *host, DsPlugin *plugin, DsErrorSink *error);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // DS_PLUGIN_H
