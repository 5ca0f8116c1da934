// Ops: prepare a kernel for a signature once, then launch it often.
//
// On real hardware `prepare` looks up the function in the loaded module and decides grid and
// workspace, `launch` packs arguments and queues. A launch copies what it needs out of the host's
// structs: their shape and stride arrays end with the call, and the work runs later.

#include "sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// What `reason` says when a constraint refuses, numbered as the host numbers constraints.
enum { REASON_DTYPES = 3, REASON_RANK = 4, REASON_DIMS = 5, REASON_LAYOUT = 6, REASON_ALIGNMENT = 7 };

struct DsPreparedObject {
    struct sim_device *device;
    const struct sim_kernel *kernel;
    struct sim_tensor tensors[SIM_MAX_TENSORS];
};

// ---- Reading the host's tensors

// Copies the extents and counts the elements; false for a negative extent or too many elements.
static bool read_shape(struct sim_tensor *tensor, const int64_t *shape)
{
    bool dynamic = false;
    int64_t elements = 1;
    bool empty = false;
    for (int32_t i = 0; i < tensor->rank; i++) {
        int64_t extent = shape[i];
        tensor->shape[i] = extent;
        dynamic = dynamic || extent == DS_DIM_DYNAMIC;
        empty = empty || extent == 0;
        if (extent < 0 && extent != DS_DIM_DYNAMIC) {
            return false;
        }
        // Bytes must be countable too, and no element here has more than 8.
        if (extent > 0 && elements > INT64_MAX / 8 / extent) {
            return false;
        }
        elements *= extent > 0 ? extent : 1;
    }
    tensor->elements = dynamic ? -1 : empty ? 0 : elements;
    return true;
}

static bool is_contiguous(const struct sim_tensor *tensor, const int64_t *strides)
{
    int64_t packed = 1;
    for (int32_t i = tensor->rank - 1; i >= 0 && tensor->elements != 0; i--) {
        // The stride of an extent of 1 means nothing.
        if (tensor->shape[i] != 1 && strides[i] != packed) {
            return false;
        }
        packed *= tensor->shape[i];
    }
    return true;
}

static DsStatus read_rank(const char *what,
                          uint32_t index,
                          int32_t rank,
                          const int64_t *shape,
                          const int64_t *strides,
                          DsErrorSink *error)
{
    if (rank < 0 || rank > SIM_MAX_RANK || (rank > 0 && (shape == NULL || strides == NULL))) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "%s: tensor %u has rank %d, or null for its shape or strides; the limit is %d",
                        what, (unsigned)index, (int)rank, SIM_MAX_RANK);
    }
    return DS_OK;
}

static DsStatus refuse_shape(const char *what, uint32_t index, DsErrorSink *error)
{
    return sim_fail(error, DS_INVALID_ARGUMENT,
                    "%s: tensor %u has a negative extent or more than 2^60 elements", what,
                    (unsigned)index);
}

// The signature's argument `index` must be one tensor, at place `index`: no kernel here takes lists.
static bool arguments_are_plain(const DsSignature *signature)
{
    for (uint32_t i = 0; i < signature->argument_count; i++) {
        if (signature->arguments[i].first != i || signature->arguments[i].count != 1) {
            return false;
        }
    }
    return true;
}

static DsStatus read_signature_tensor(const struct sim_kernel *kernel,
                                      uint32_t index,
                                      const DsTensorSignature *theirs,
                                      struct sim_tensor *tensor,
                                      DsErrorSink *error)
{
    DsStatus status = read_rank(kernel->name, index, theirs->ndim, theirs->shape, theirs->strides, error);
    if (status != DS_OK) {
        return status;
    }
    tensor->rank = theirs->ndim;
    if (!read_shape(tensor, theirs->shape)) {
        return refuse_shape(kernel->name, index, error);
    }
    tensor->dtype = sim_dtype(theirs->dtype);
    if (tensor->dtype == UINT32_MAX || !(kernel->dtypes[index] >> tensor->dtype & 1)) {
        return sim_fail_with(error, (struct sim_details){.code = DS_CONSTRAINT, .reason = REASON_DTYPES},
                             "%s: tensor %u has DLPack type %u of %u bits, which is none of its dtypes",
                             kernel->name, (unsigned)index, (unsigned)theirs->dtype.code,
                             (unsigned)theirs->dtype.bits);
    }
    if (index == 0 && (tensor->rank < kernel->rank_min || tensor->rank > kernel->rank_max)) {
        return sim_fail_with(error, (struct sim_details){.code = DS_CONSTRAINT, .reason = REASON_RANK},
                             "%s: takes rank %d to %d, the call has rank %d", kernel->name,
                             (int)kernel->rank_min, (int)kernel->rank_max, (int)tensor->rank);
    }
    if (index == 0 && kernel->row_min > 0 && tensor->shape[tensor->rank - 1] != DS_DIM_DYNAMIC
        && tensor->shape[tensor->rank - 1] < kernel->row_min) {
        return sim_fail_with(error, (struct sim_details){.code = DS_CONSTRAINT, .reason = REASON_DIMS},
                             "%s: takes rows of at least %" PRId64 " elements", kernel->name,
                             kernel->row_min);
    }
    if (theirs->layout != DS_LAYOUT_CONTIGUOUS) {
        return sim_fail_with(error, (struct sim_details){.code = DS_CONSTRAINT, .reason = REASON_LAYOUT},
                             "%s: takes contiguous tensors, tensor %u is of layout %u", kernel->name,
                             (unsigned)index, (unsigned)theirs->layout);
    }
    uint64_t alignment = theirs->alignment_log2 < 64 ? UINT64_C(1) << theirs->alignment_log2 : 0;
    if (alignment < SIM_ALIGNMENT_BYTES && tensor->elements != 0) {
        return sim_fail_with(error,
                             (struct sim_details){.code = DS_CONSTRAINT, .reason = REASON_ALIGNMENT},
                             "%s: takes tensors aligned to %d bytes, tensor %u is aligned to %" PRIu64,
                             kernel->name, SIM_ALIGNMENT_BYTES, (unsigned)index, alignment);
    }
    return DS_OK;
}

DsStatus sim_read_signature(const struct sim_kernel *kernel,
                            const DsSignature *theirs,
                            struct sim_tensor tensors[SIM_MAX_TENSORS],
                            DsErrorSink *error)
{
    DsSignature signature;
    sim_take(&signature, sizeof signature, theirs, sim_stated_bytes(theirs));
    if (!sim_str_is(signature.op, kernel->op)) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "%s: is for the op %s, the signature for '%.*s'",
                        kernel->name, kernel->op, SIM_STR(signature.op));
    }
    if (signature.tensor_count != kernel->tensor_count
        || signature.argument_count != kernel->tensor_count || signature.tensors == NULL
        || signature.arguments == NULL || !arguments_are_plain(&signature)
        || signature.attribute_count != 0) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "%s: takes %u tensors and no static attributes, one tensor an argument; the "
                        "signature has %u tensors for %u arguments and %u attributes",
                        kernel->name, (unsigned)kernel->tensor_count, (unsigned)signature.tensor_count,
                        (unsigned)signature.argument_count, (unsigned)signature.attribute_count);
    }
    memset(tensors, 0, SIM_MAX_TENSORS * sizeof *tensors);
    for (uint32_t i = 0; i < kernel->tensor_count; i++) {
        DsTensorSignature tensor;
        const char *at = (const char *)signature.tensors + (size_t)i * signature.tensor_stride;
        sim_take(&tensor, sizeof tensor, at, signature.tensor_stride);
        DsStatus status = read_signature_tensor(kernel, i, &tensor, &tensors[i], error);
        if (status != DS_OK) {
            return status;
        }
    }
    const char *wrong = kernel->check(tensors);
    return wrong == NULL ? DS_OK : sim_fail(error, DS_INVALID_ARGUMENT, "%s: %s", kernel->name, wrong);
}

// ---- Prepare

static DsStatus prepare(DsDevice handle,
                        const DsNode *nodes,
                        uint32_t node_count,
                        uint32_t node_stride,
                        DsPrepared *prepared,
                        DsErrorSink *error)
{
    DsStatus status = sim_enter("prepare", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL || nodes == NULL || prepared == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "prepare: the device, nodes or place is null");
    }
    if (node_count != 1) {
        return sim_fail(error, DS_UNSUPPORTED, "prepare: sim takes one node, found %u",
                        (unsigned)node_count);
    }
    // The handle must fit, or the host could never release it.
    if (sim_stated_bytes(prepared) < sizeof *prepared) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "prepare: prepared states a struct_size of %zu, version 1.0 has %zu",
                        sim_stated_bytes(prepared), sizeof *prepared);
    }
    DsNode node;
    size_t node_bytes = sim_stated_bytes(nodes);
    sim_take(&node, sizeof node, nodes, node_bytes < node_stride ? node_bytes : node_stride);
    const struct sim_kernel *kernel = sim_kernel_find(node.kernel);
    if (kernel == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "prepare: sim has no kernel '%.*s'",
                        SIM_STR(node.kernel));
    }
    if (node.signature == NULL || node.module == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "prepare: %s needs a signature and the recipe that was built for it",
                        kernel->name);
    }

    struct DsPreparedObject *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return sim_fail_host_memory(error);
    }
    made->device = handle->device;
    made->kernel = kernel;
    status = sim_read_signature(kernel, node.signature, made->tensors, error);
    if (status == DS_OK) {
        char recipe[SIM_RECIPE_BYTES];
        sim_recipe(kernel, made->tensors, recipe);
        if (strcmp(recipe, node.module->recipe) != 0) {
            status = sim_fail(error, DS_STALE,
                              "prepare: the recipe was made for another call of %s; build it again",
                              kernel->name);
        }
    }
    if (status != DS_OK) {
        free(made);
        return status;
    }
    const DsPrepared filled = {
        .handle = made,
        .workspace_bytes = kernel->workspace_bytes,
        .workspace_alignment = kernel->workspace_bytes != 0 ? SIM_ALIGNMENT_BYTES : 0,
    };
    sim_give(prepared, &filled, sizeof filled);
    sim_made(SIM_PREPARED);
    return DS_OK;
}

static void release(DsPreparedHandle prepared)
{
    sim_given_back(SIM_PREPARED);
    free(prepared);
}

// ---- Launch

#define MAX_SCALARS 2

struct launch_work {
    struct sim_work work;
    struct sim_device *device;
    const struct sim_kernel *kernel;
    struct sim_tensor tensors[SIM_MAX_TENSORS];
    double scalars[MAX_SCALARS];
    uint64_t workspace;
    uint64_t correlation;
};

// Does what SIM_WRONG asks of this kernel, in the bits that change any number by much.
static void spoil(struct launch_work *launch)
{
    const struct sim_settings *settings = sim_settings();
    if (settings->wrong == SIM_RIGHT || strcmp(settings->wrong_kernel, launch->kernel->name) != 0) {
        return;
    }
    bool input = settings->wrong == SIM_WRONG_INPUT;
    struct sim_tensor *tensor = &launch->tensors[input ? 0 : launch->kernel->tensor_count - 1];
    uint64_t element_bytes = sim_dtype_bytes(tensor->dtype);
    uint64_t bytes = (uint64_t)tensor->elements * element_bytes;
    uint64_t at = input ? element_bytes - 1 : bytes - 1;
    if (settings->wrong == SIM_WRONG_BEHIND) {
        at = bytes;
    }
    unsigned char *data =
        bytes == 0 ? NULL : sim_resolve(launch->device, tensor->address, at < bytes ? bytes : at + 1);
    if (data != NULL) {
        data[at] ^= 0x40;
    }
}

static void run_launch(struct sim_work *work, struct sim_failure *failure)
{
    struct launch_work *launch = (struct launch_work *)work;
    const struct sim_kernel *kernel = launch->kernel;
    for (uint32_t i = 0; i < kernel->tensor_count; i++) {
        struct sim_tensor *tensor = &launch->tensors[i];
        uint64_t bytes = (uint64_t)tensor->elements * sim_dtype_bytes(tensor->dtype);
        tensor->data = bytes == 0 ? NULL : sim_resolve(launch->device, tensor->address, bytes);
        if (tensor->data == NULL && bytes != 0) {
            sim_failure_set(failure, DS_INVALID_ARGUMENT,
                            "%s: tensor %u, %" PRIu64 " bytes at %#" PRIx64
                            ", is not within one allocation (launch %" PRIu64 ")",
                            kernel->name, (unsigned)i, bytes, tensor->address, launch->correlation);
            return;
        }
    }
    void *workspace = NULL;
    if (kernel->workspace_bytes != 0) {
        workspace = sim_resolve(launch->device, launch->workspace, kernel->workspace_bytes);
        if (workspace == NULL) {
            sim_failure_set(failure, DS_INVALID_ARGUMENT,
                            "%s: its workspace, %" PRIu64 " bytes at %#" PRIx64
                            ", is not within one allocation (launch %" PRIu64 ")",
                            kernel->name, kernel->workspace_bytes, launch->workspace,
                            launch->correlation);
            return;
        }
    }
    kernel->run(launch->tensors, launch->scalars, workspace);
    spoil(launch);
}

// Reads one tensor and holds it against what was prepared.
static DsStatus read_tensor(const struct sim_kernel *kernel,
                            uint32_t index,
                            const DLTensor *dl,
                            const struct sim_tensor *prepared,
                            struct sim_tensor *tensor,
                            DsErrorSink *error)
{
    DsStatus status = read_rank(kernel->name, index, dl->ndim, dl->shape, dl->strides, error);
    if (status != DS_OK) {
        return status;
    }
    tensor->rank = dl->ndim;
    tensor->dtype = sim_dtype(dl->dtype);
    tensor->address = (uintptr_t)dl->data + dl->byte_offset;
    if (!read_shape(tensor, dl->shape) || tensor->elements < 0) {
        return refuse_shape(kernel->name, index, error);
    }
    bool as_prepared = tensor->rank == prepared->rank && tensor->dtype == prepared->dtype;
    for (int32_t i = 0; as_prepared && i < tensor->rank; i++) {
        as_prepared = prepared->shape[i] == tensor->shape[i] || prepared->shape[i] == DS_DIM_DYNAMIC;
    }
    bool aligned = tensor->elements == 0 || tensor->address % SIM_ALIGNMENT_BYTES == 0;
    if (!as_prepared || !aligned || !is_contiguous(tensor, dl->strides)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "%s: tensor %u is not the one of its signature in dtype, shape, strides or "
                        "alignment; prepare again for what is launched",
                        kernel->name, (unsigned)index);
    }
    return DS_OK;
}

static DsStatus read_launch(const struct DsPreparedObject *prepared,
                            const DsLaunch *asked,
                            struct launch_work *launch,
                            DsErrorSink *error)
{
    const struct sim_kernel *kernel = prepared->kernel;
    if (asked->tensor_count != kernel->tensor_count || asked->tensors == NULL
        || asked->scalar_count != kernel->scalar_count
        || (kernel->scalar_count > 0 && asked->scalars == NULL)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "%s: takes %u tensors and %u scalars, the launch has %u and %u", kernel->name,
                        (unsigned)kernel->tensor_count, (unsigned)kernel->scalar_count,
                        (unsigned)asked->tensor_count, (unsigned)asked->scalar_count);
    }
    for (uint32_t i = 0; i < kernel->tensor_count; i++) {
        DsTensor tensor;
        const char *at = (const char *)asked->tensors + (size_t)i * asked->tensor_stride;
        size_t bytes = asked->tensor_stride < sizeof(uint32_t) ? 0 : sim_stated_bytes(at);
        sim_take(&tensor, sizeof tensor, at, bytes < asked->tensor_stride ? bytes : asked->tensor_stride);
        DsStatus status =
            read_tensor(kernel, i, &tensor.dl, &prepared->tensors[i], &launch->tensors[i], error);
        if (status != DS_OK) {
            return status;
        }
    }
    // Dynamic extents were wildcards in the signature; here they must agree.
    const char *wrong = kernel->check(launch->tensors);
    if (wrong != NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "%s: %s", kernel->name, wrong);
    }
    for (uint32_t i = 0; i < kernel->scalar_count; i++) {
        if (asked->scalars[i].kind != DS_VALUE_F64) {
            return sim_fail(error, DS_INVALID_ARGUMENT, "%s: scalar %u is of kind %u, it takes an f64",
                            kernel->name, (unsigned)i, (unsigned)asked->scalars[i].kind);
        }
        launch->scalars[i] = asked->scalars[i].value.real;
    }
    launch->workspace = (uintptr_t)asked->workspace;
    if (asked->workspace_bytes < kernel->workspace_bytes
        || (kernel->workspace_bytes != 0 && launch->workspace % SIM_ALIGNMENT_BYTES != 0)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "%s: needs %" PRIu64 " bytes of workspace aligned to %d, found %" PRIu64,
                        kernel->name, kernel->workspace_bytes, SIM_ALIGNMENT_BYTES,
                        asked->workspace_bytes);
    }
    launch->correlation = asked->correlation;
    return DS_OK;
}

static DsStatus launch(DsPreparedHandle prepared, const DsLaunch *theirs, DsErrorSink *error)
{
    DsStatus status = sim_enter("launch", error);
    if (status != DS_OK) {
        return status;
    }
    DsLaunch asked;
    sim_take(&asked, sizeof asked, theirs, sim_stated_bytes(theirs));
    if (prepared == NULL || asked.stream == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "launch: the kernel, launch or stream is null");
    }
    if (asked.stream->device != prepared->device) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "launch: %s was prepared for %s, the stream belongs to %s",
                        prepared->kernel->name, prepared->device->uuid, asked.stream->device->uuid);
    }
    struct launch_work *launch = calloc(1, sizeof *launch);
    if (launch == NULL) {
        return sim_fail_host_memory(error);
    }
    launch->work.run = run_launch;
    launch->device = prepared->device;
    launch->kernel = prepared->kernel;
    status = read_launch(prepared, &asked, launch, error);
    if (status != DS_OK) {
        free(launch);
        return status;
    }
    sim_stream_push(asked.stream, &launch->work, "launch_async");
    return DS_OK;
}

// `refine` is left out: the scores in plugin.json hold for every call.
const DsOpTable sim_op_table = {
    .struct_size = sizeof(DsOpTable),
    .prepare = prepare,
    .launch = launch,
    .release = release,
};
