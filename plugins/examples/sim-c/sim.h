// What the files of this plugin share; each group below names the file that defines it.
// Nothing here is seen by the host: the host's side of everything is in ds_plugin.h.

#ifndef SIM_H
#define SIM_H

// POSIX threads, mmap and nanosleep, beside plain C11. Must come before any header of libc.
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ds_plugin.h"

#define SIM_TARGET "sim-1"
#define SIM_ALIGNMENT_BYTES 256
#define SIM_DEVICES 2
#define SIM_MAX_TENSORS 4
#define SIM_MAX_RANK 8

// ---- support.c: errors, strings and sized structs. Every plugin needs these; take them as they are.

// What a failure says beside its message; zero what does not apply.
struct sim_details {
    DsStatus code;
    int32_t vendor_code;
    uint32_t flags;
    uint32_t reason;
    uint64_t a;
    uint64_t b;
};

// Fills the sink, which may be null, and gives back the code: `return sim_fail(error, DS_…, "…")`.
__attribute__((format(printf, 3, 4))) DsStatus sim_fail_with(DsErrorSink *error,
                                                             struct sim_details details,
                                                             const char *format,
                                                             ...);
#define sim_fail(error, status, ...) \
    sim_fail_with((error), (struct sim_details){.code = (status)}, __VA_ARGS__)
DsStatus sim_fail_host_memory(DsErrorSink *error);

// Reads a struct of the host's: what it is too small for reads as zero.
void sim_take(void *own, size_t own_bytes, const void *theirs, size_t their_bytes);
// Writes a struct of the host's within the size it states; false when it states none.
bool sim_give(void *theirs, const void *own, size_t own_bytes);
// The `struct_size` that a struct of the host's starts with.
size_t sim_stated_bytes(const void *theirs);

DsStr sim_str(const char *text);
bool sim_str_is(DsStr str, const char *text);
// For printf's "%.*s".
#define SIM_STR(str) (int)((str).len < 200 ? (str).len : 200), ((str).data ? (str).data : "")

// Why queued work failed. It outlives the call that queued the work, so it is no error sink.
struct sim_failure {
    DsStatus status;
    char message[200];
};
__attribute__((format(printf, 3, 4))) void sim_failure_set(struct sim_failure *failure,
                                                           DsStatus status,
                                                           const char *format,
                                                           ...);

void sim_log_to(const DsHost *host);
void sim_log(uint32_t level, const char *message);

// ---- settings.c: the SIM_* variables. Only a simulator has these.

// What a kernel does wrong.
enum sim_wrong {
    SIM_RIGHT,
    SIM_WRONG_RESULT, // in the last element of the last tensor
    SIM_WRONG_INPUT,  // changes the first element of the first tensor
    SIM_WRONG_BEHIND, // writes behind the last tensor
};

struct sim_settings {
    DsStatus status; // why the variables cannot be used, or DS_OK
    char problem[200];
    uint64_t memory_bytes; // of each device, in whole pages
    uint64_t seed;
    uint64_t max_delay_us;
    uint64_t compile_ms;
    uint32_t visible[SIM_DEVICES];
    uint32_t visible_count;
    enum sim_wrong wrong;
    char wrong_kernel[64];
};

// Read once, so that what `describe` tells stays constant.
const struct sim_settings *sim_settings(void);
// The status with which SIM_FAULT wants this call of `function` to fail, or DS_OK. Counts the call.
DsStatus sim_fault(const char *function);
// The first line of every function of every table: refuses after fork, and injects faults.
DsStatus sim_enter(const char *function, DsErrorSink *error);
// Whether this is a child of fork, for functions that cannot fail.
bool sim_forked(void);
void sim_watch_fork(void);

// What the host has to give back; SIM_REPORT tells how much of it is live when the process ends.
enum sim_handle { SIM_STREAM, SIM_EVENT, SIM_BLOCK, SIM_PREPARED, SIM_HANDLES };

void sim_made(enum sim_handle kind);
void sim_given_back(enum sim_handle kind);

// ---- device.c

// A simulated piece of hardware. What the driver of real hardware keeps, you do not.
struct sim_device {
    uint32_t number;
    const char *uuid;
    pthread_mutex_t lock; // guards everything below
    unsigned char *addresses; // first device address; nobody can read or write there
    unsigned char *storage;   // where the bytes really are
    struct sim_block *blocks; // live allocations, by address
    uint64_t used_bytes;
    struct DsStreamObject *streams; // every stream whose thread still runs
    struct DsStreamObject *default_stream;
    uint64_t streams_made;
};

// What the host calls a device. Opening twice gives two of these for one `struct sim_device`.
struct DsDeviceObject {
    struct sim_device *device;
};

extern const DsDeviceTable sim_device_table;

// ---- memory.c

extern const DsMemoryTable sim_memory_table;

// Where `bytes` bytes at a device address really are; null unless they lie in one allocation.
// This is what the hardware's memory management unit does: only queued work calls it.
void *sim_resolve(struct sim_device *device, uint64_t address, uint64_t bytes);

// ---- stream.c

extern const DsStreamTable sim_stream_table;

// One item of a stream's queue; embed it first in a struct with what `run` needs.
struct sim_work {
    struct sim_work *next;
    // Does the work on the stream's thread. A failure goes into `failure`, which holds that of
    // earlier work when `even_after_failure` let this item run behind one.
    void (*run)(struct sim_work *work, struct sim_failure *failure);
    // Lets go of what the item holds, run or not; may be null.
    void (*drop)(struct sim_work *work);
    bool even_after_failure;
    DsStatus fault;
    const char *fault_name;
};

struct DsStreamObject {
    struct sim_device *device;
    struct DsStreamObject *next; // in the device's list, under its lock
    uint32_t handles;            // under the device's lock: the default stream has many
    atomic_uint references;
    uint64_t random;             // the thread's own
    pthread_mutex_t lock;        // guards everything below
    pthread_cond_t changed;
    struct sim_work *first;
    struct sim_work **last;
    uint64_t queued; // items ever queued
    uint64_t done;   // items ever done
    bool closed;
    struct sim_failure failure;
};

// Takes over `work`, a heap block. `fault_name` is what SIM_FAULT calls a failure of it.
void sim_stream_push(DsStream stream, struct sim_work *work, const char *fault_name);
// Waits until everything queued before the call is done; gives the stream's first failure.
DsStatus sim_stream_drain(DsStream stream, DsErrorSink *error);
// Waits for every stream of the device; gives the first failure found.
DsStatus sim_streams_drain(struct sim_device *device, DsErrorSink *error);

// ---- event.c: the event half of the stream table

DsStatus sim_event_create(DsDevice device, DsEvent *event, DsErrorSink *error);
void sim_event_destroy(DsEvent event);
DsStatus sim_event_record(DsStream stream, DsEvent event, uint64_t value, DsErrorSink *error);
DsStatus sim_event_wait(DsStream stream, DsEvent event, uint64_t value, DsErrorSink *error);
DsStatus sim_event_signal(DsEvent event, uint64_t value, DsStatus status, DsErrorSink *error);
DsStatus sim_event_query(DsEvent event, DsEventState *state, DsErrorSink *error);
DsStatus sim_event_synchronize(DsEvent event, uint64_t value, uint64_t timeout_ns, DsErrorSink *error);
DsStatus sim_event_on_ready(DsEvent event,
                            uint64_t value,
                            DsEventCallback callback,
                            void *user,
                            DsErrorSink *error);

// ---- kernels.c: the arithmetic

// One tensor of a call. In a signature `address` is 0 and extents may be DS_DIM_DYNAMIC; in a
// launch it is a device address; in a kernel `data` is where the bytes are.
struct sim_tensor {
    uint32_t dtype; // DS_DTYPE_*
    int32_t rank;
    int64_t shape[SIM_MAX_RANK];
    int64_t elements; // -1 when an extent is dynamic
    uint64_t address;
    void *data;
};

// What plugin.json says of a kernel, as the code needs it.
struct sim_kernel {
    const char *name;
    const char *op;
    uint32_t tensor_count; // inputs before outputs
    uint32_t scalar_count; // launch scalars, all f64
    uint64_t dtypes[SIM_MAX_TENSORS]; // bit 1 << DS_DTYPE_* of each tensor
    int32_t rank_min, rank_max;       // of the first tensor
    int64_t row_min;                  // least last extent of the first tensor
    uint64_t workspace_bytes;
    // Holds shapes against the op's schema; gives what is wrong, or null.
    const char *(*check)(const struct sim_tensor *tensors);
    void (*run)(const struct sim_tensor *tensors, const double *scalars, void *workspace);
};

const struct sim_kernel *sim_kernel_find(DsStr name);
// DS_DTYPE_* of a DLPack type, UINT32_MAX when no kernel knows it.
uint32_t sim_dtype(DLDataType dtype);
uint64_t sim_dtype_bytes(uint32_t dtype);
const char *sim_dtype_name(uint32_t dtype);

// ---- ops.c

extern const DsOpTable sim_op_table;

// Reads the tensors of a signature, with the checks that need no knowledge of constraints.
DsStatus sim_read_signature(const struct sim_kernel *kernel,
                            const DsSignature *signature,
                            struct sim_tensor tensors[SIM_MAX_TENSORS],
                            DsErrorSink *error);

// ---- jit.c

extern const DsJitTable sim_jit_table;

#define SIM_RECIPE_BYTES 2048

// A loaded recipe.
struct DsModuleObject {
    struct DsModuleObject *next;
    char recipe[SIM_RECIPE_BYTES];
};

// The text that stands for a call of `kernel` with `tensors`: a recipe is good for this text only.
void sim_recipe(const struct sim_kernel *kernel,
                const struct sim_tensor *tensors,
                char text[SIM_RECIPE_BYTES]);

#endif
