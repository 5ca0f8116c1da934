// Builds on demand: a toolchain that is a library, and artefacts that hold for one signature.
//
// That is how graph compilers work (a recipe for exactly these shapes), and takes the longest way
// through the host: request, compile in process, cache, load, prepare. A runtime compiler such as
// NVRTC takes the same way with one artefact a kernel; a compiler that is a program needs
// no `compile`, the host runs it.
//
//   source   recipe.txt    "kernel sim_cast\ntarget sim-1\ntensor f32 2 4 8\ntensor bf16 2 4 8\n"
//   artefact sim_cast.simr "SIMR1\n", the source, "checksum 0123456789abcdef\n"

#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOOLCHAIN "simc"
#define SOURCE_NAME "recipe.txt"
#define MAGIC "SIMR1\n"
#define MAGIC_BYTES (sizeof MAGIC - 1)
#define CHECKSUM_BYTES 26 // "checksum ", 16 digits, a line feed

// What a smoke compile builds, in place of a kernel.
static const char SMOKE[] = "kernel smoke\ntarget " SIM_TARGET "\n";

void sim_recipe(const struct sim_kernel *kernel,
                const struct sim_tensor *tensors,
                char text[SIM_RECIPE_BYTES])
{
    // Fits: 4 tensors with 8 extents of at most 20 characters each.
    size_t at = (size_t)snprintf(text, SIM_RECIPE_BYTES, "kernel %s\ntarget %s\n", kernel->name, SIM_TARGET);
    for (uint32_t i = 0; i < kernel->tensor_count; i++) {
        at += (size_t)snprintf(text + at, SIM_RECIPE_BYTES - at, "tensor %s %d",
                               sim_dtype_name(tensors[i].dtype), (int)tensors[i].rank);
        for (int32_t d = 0; d < tensors[i].rank; d++) {
            if (tensors[i].shape[d] == DS_DIM_DYNAMIC) {
                at += (size_t)snprintf(text + at, SIM_RECIPE_BYTES - at, " ?");
            } else {
                at += (size_t)snprintf(text + at, SIM_RECIPE_BYTES - at, " %" PRId64, tensors[i].shape[d]);
            }
        }
        at += (size_t)snprintf(text + at, SIM_RECIPE_BYTES - at, "\n");
    }
}

// The end of the two lines that a recipe for `name` starts with, or null.
static const char *skip_head(const char *text, DsStr name)
{
    char head[128];
    int bytes = snprintf(head, sizeof head, "kernel %.*s\ntarget %s\n", SIM_STR(name), SIM_TARGET);
    return bytes > 0 && (size_t)bytes < sizeof head && strncmp(text, head, (size_t)bytes) == 0
        ? text + bytes
        : NULL;
}

// FNV-1a, 64 bits (Fowler, Noll and Vo).
static uint64_t checksum(const void *bytes, size_t len)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001B3);
    }
    return hash;
}

// ---- Toolchains

static DsStatus toolchain_count(uint32_t *count, DsErrorSink *error)
{
    DsStatus status = sim_enter("toolchain_count", error);
    if (status != DS_OK) {
        return status;
    }
    if (count == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "toolchain_count: the place for it is null");
    }
    *count = 1;
    return DS_OK;
}

static DsStatus toolchain(uint32_t index, DsToolchain *toolchain, DsErrorSink *error)
{
    DsStatus status = sim_enter("toolchain", error);
    if (status != DS_OK) {
        return status;
    }
    if (index != 0) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "toolchain: sim has one, there is no %u",
                        (unsigned)index);
    }
    const DsToolchain description = {
        .kind = DS_TOOLCHAIN_IN_PROCESS,
        .name = sim_str(TOOLCHAIN),
        .version = sim_str("simc 1.0 (part of the plugin)"),
    };
    if (!sim_give(toolchain, &description, sizeof description)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "toolchain: the place is null or states no struct_size");
    }
    return DS_OK;
}

// ---- Request

static DsStatus check_target(const char *function, DsStr target, DsErrorSink *error)
{
    if (!sim_str_is(target, SIM_TARGET)) {
        return sim_fail(error, DS_UNSUPPORTED, "%s: %s builds for %s, not for '%.*s'", function, TOOLCHAIN,
                        SIM_TARGET, SIM_STR(target));
    }
    return DS_OK;
}

static DsStatus request(DsStr kernel_name,
                        const DsSignature *signature,
                        DsStr target,
                        DsRequestVisitor visit,
                        void *user,
                        DsErrorSink *error)
{
    DsStatus status = sim_enter("request", error);
    if (status == DS_OK) {
        status = check_target("request", target, error);
    }
    if (status != DS_OK) {
        return status;
    }
    if (visit == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "request: the visitor is null");
    }
    char recipe[SIM_RECIPE_BYTES];
    char output[64] = "smoke.simr";
    memcpy(recipe, SMOKE, sizeof SMOKE);
    if (kernel_name.len != 0) {
        const struct sim_kernel *kernel = sim_kernel_find(kernel_name);
        if (kernel == NULL) {
            return sim_fail(error, DS_INVALID_ARGUMENT, "request: sim has no kernel '%.*s'",
                            SIM_STR(kernel_name));
        }
        if (signature == NULL) {
            return sim_fail(error, DS_INVALID_ARGUMENT,
                            "request: a recipe of %s holds for one signature; give it", kernel->name);
        }
        struct sim_tensor tensors[SIM_MAX_TENSORS];
        status = sim_read_signature(kernel, signature, tensors, error);
        if (status != DS_OK) {
            return status;
        }
        sim_recipe(kernel, tensors, recipe);
        snprintf(output, sizeof output, "%s.simr", kernel->name);
    }
    const DsSource source = {
        .name = sim_str(SOURCE_NAME),
        .content = {.data = (const uint8_t *)recipe, .len = strlen(recipe)},
    };
    const DsBuildRequest build = {
        .struct_size = sizeof build,
        .toolchain = sim_str(TOOLCHAIN),
        .sources = &source,
        .source_count = 1,
        .source_stride = sizeof source,
        .output = sim_str(output),
    };
    return visit(user, &build);
}

// ---- Compile

static DsStatus tell(DsBytesVisitor log, void *user, const char *text)
{
    return log == NULL ? DS_OK
                       : log(user, (DsBytes){.data = (const uint8_t *)text, .len = strlen(text)});
}

// What is wrong with a source, or null.
static const char *problem_of(const char *text)
{
    size_t name_len = strncmp(text, "kernel ", 7) == 0 ? strcspn(text + 7, "\n") : 0;
    DsStr name = {.data = text + 7, .len = name_len};
    if (!sim_str_is(name, "smoke") && (name_len == 0 || sim_kernel_find(name) == NULL)) {
        return "recipe.txt:1: expected 'kernel' and the name of one\n";
    }
    const char *line = skip_head(text, name);
    if (line == NULL) {
        return "recipe.txt:2: expected 'target " SIM_TARGET "'\n";
    }
    for (; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, "tensor ", 7) != 0 || strchr(line, '\n') == NULL) {
            return "recipe.txt: expected lines of 'tensor', a dtype, a rank and extents\n";
        }
    }
    return NULL;
}

// Finds the one source file and copies its text; false when there is none of that name and size.
static bool read_source(const DsBuildRequest *build, char text[SIM_RECIPE_BYTES])
{
    for (uint32_t i = 0; build->sources != NULL && i < build->source_count; i++) {
        DsSource source;
        const char *at = (const char *)build->sources + (size_t)i * build->source_stride;
        sim_take(&source, sizeof source, at, build->source_stride);
        if (sim_str_is(source.name, SOURCE_NAME) && source.content.data != NULL
            && source.content.len < SIM_RECIPE_BYTES) {
            memcpy(text, source.content.data, source.content.len);
            text[source.content.len] = '\0';
            return true;
        }
    }
    return false;
}

static DsStatus compile(const DsBuildRequest *theirs,
                        DsStr target,
                        DsBytesVisitor artefact,
                        DsBytesVisitor log,
                        void *user,
                        DsErrorSink *error)
{
    DsStatus status = sim_enter("compile", error);
    if (status == DS_OK) {
        status = check_target("compile", target, error);
    }
    if (status != DS_OK) {
        return status;
    }
    DsBuildRequest build;
    sim_take(&build, sizeof build, theirs, sim_stated_bytes(theirs));
    char source[SIM_RECIPE_BYTES];
    if (artefact == NULL || !sim_str_is(build.toolchain, TOOLCHAIN) || !read_source(&build, source)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "compile: needs a visitor, the toolchain %s and a source %s of less than %d bytes",
                        TOOLCHAIN, SOURCE_NAME, SIM_RECIPE_BYTES);
    }
    uint64_t compile_ms = sim_settings()->compile_ms;
    struct timespec time = {
        .tv_sec = (time_t)(compile_ms / 1000),
        .tv_nsec = (long)(compile_ms % 1000 * 1000000),
    };
    nanosleep(&time, NULL);

    const char *problem = problem_of(source);
    if (problem != NULL) {
        tell(log, user, problem);
        return sim_fail(error, DS_BUILD_FAILED, "compile: %s refused %s; its log says where", TOOLCHAIN,
                        SOURCE_NAME);
    }
    char made[MAGIC_BYTES + SIM_RECIPE_BYTES + CHECKSUM_BYTES + 1];
    size_t len = (size_t)snprintf(made, sizeof made, "%s%s", MAGIC, source);
    len += (size_t)snprintf(made + len, sizeof made - len, "checksum %016" PRIx64 "\n", checksum(made, len));
    char line[64];
    snprintf(line, sizeof line, "%s: %zu bytes\n", TOOLCHAIN, len);
    status = tell(log, user, line);
    return status != DS_OK ? status
                           : artefact(user, (DsBytes){.data = (const uint8_t *)made, .len = len});
}

// ---- Load

// Every recipe that was loaded. None is ever unloaded, so one that comes again is found here.
static struct DsModuleObject *modules;
static pthread_mutex_t modules_lock = PTHREAD_MUTEX_INITIALIZER;

// What is wrong with an artefact, or null and its recipe.
static const char *read_artefact(const DsArtefact *artefact, char recipe[SIM_RECIPE_BYTES])
{
    const char *content = (const char *)artefact->content.data;
    size_t len = artefact->content.len;
    if (content == NULL || len < MAGIC_BYTES + CHECKSUM_BYTES
        || len >= MAGIC_BYTES + SIM_RECIPE_BYTES + CHECKSUM_BYTES
        || memcmp(content, MAGIC, MAGIC_BYTES) != 0) {
        return "it is no recipe of version 1";
    }
    char last_line[CHECKSUM_BYTES + 1];
    size_t before = len - CHECKSUM_BYTES;
    snprintf(last_line, sizeof last_line, "checksum %016" PRIx64 "\n", checksum(content, before));
    if (memcmp(content + before, last_line, CHECKSUM_BYTES) != 0) {
        return "its checksum does not fit its content";
    }
    size_t recipe_len = before - MAGIC_BYTES;
    memcpy(recipe, content + MAGIC_BYTES, recipe_len);
    recipe[recipe_len] = '\0';
    return skip_head(recipe, artefact->kernel) == NULL ? "it is for another kernel or target" : NULL;
}

static DsStatus
load(DsDevice device, const DsArtefact *theirs, DsModule *module, DsErrorSink *error)
{
    DsStatus status = sim_enter("load", error);
    if (status != DS_OK) {
        return status;
    }
    if (device == NULL || theirs == NULL || module == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "load: the device, artefact or place is null");
    }
    DsArtefact artefact;
    sim_take(&artefact, sizeof artefact, theirs, sim_stated_bytes(theirs));
    char recipe[SIM_RECIPE_BYTES];
    const char *problem = read_artefact(&artefact, recipe);
    if (problem != NULL) {
        return sim_fail(error, DS_STALE, "load: '%.*s' cannot be used for '%.*s': %s; build it again",
                        SIM_STR(artefact.path), SIM_STR(artefact.kernel), problem);
    }
    pthread_mutex_lock(&modules_lock);
    struct DsModuleObject *found = modules;
    while (found != NULL && strcmp(found->recipe, recipe) != 0) {
        found = found->next;
    }
    if (found == NULL) {
        found = calloc(1, sizeof *found);
        if (found != NULL) {
            memcpy(found->recipe, recipe, strlen(recipe) + 1);
            found->next = modules;
            modules = found;
        }
    }
    pthread_mutex_unlock(&modules_lock);
    if (found == NULL) {
        return sim_fail_host_memory(error);
    }
    *module = found;
    return DS_OK;
}

const DsJitTable sim_jit_table = {
    .struct_size = sizeof(DsJitTable),
    .toolchain_count = toolchain_count,
    .toolchain = toolchain,
    .request = request,
    .compile = compile,
    .load = load,
};
