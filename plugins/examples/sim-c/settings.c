// The SIM_* variables: how many devices, how large, how slow, and what shall fail.
// A plugin for real hardware has its vendor's visibility variable here and nothing else.

#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096
#define MAX_FAULTS 8

// One entry of SIM_FAULT: the call that makes `left` zero fails.
struct fault {
    char function[32];
    atomic_ullong left;
    DsStatus status;
};

static struct sim_settings settings;
static struct fault faults[MAX_FAULTS];
static size_t fault_count;
static atomic_uint faults_met;
static pthread_once_t settings_once = PTHREAD_ONCE_INIT;

__attribute__((format(printf, 2, 3))) static void refuse(DsStatus status, const char *format, ...)
{
    if (settings.status != DS_OK) {
        return;
    }
    settings.status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(settings.problem, sizeof settings.problem, format, arguments);
    va_end(arguments);
}

// Reads digits up to `stop`; false when there is anything else, or too much.
static bool read_number(const char *text, const char *stop, uint64_t *number)
{
    if (text == stop) {
        return false;
    }
    *number = 0;
    for (; text < stop; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || *number > (UINT64_MAX - digit) / 10) {
            return false;
        }
        *number = *number * 10 + digit;
    }
    return true;
}

static uint64_t number_of(const char *variable, uint64_t usual)
{
    const char *text = getenv(variable);
    uint64_t number = usual;
    if (text != NULL && !read_number(text, text + strlen(text), &number)) {
        refuse(DS_INVALID_ARGUMENT, "%s is '%s', which is no number; unset it or give digits only",
               variable, text);
        return usual;
    }
    return number;
}

static void read_visible_devices(void)
{
    const char *list = getenv("SIM_VISIBLE_DEVICES");
    if (list == NULL) {
        list = "0,1";
    }
    bool seen[SIM_DEVICES] = {false};
    for (const char *at = list; *at != '\0';) {
        const char *stop = at + strcspn(at, ",");
        uint64_t number;
        if (!read_number(at, stop, &number) || number >= SIM_DEVICES || seen[number]) {
            refuse(DS_NO_DEVICE,
                   "SIM_VISIBLE_DEVICES is '%s'; it takes each of 0 and 1 at most once, such as '0,1'",
                   list);
            return;
        }
        seen[number] = true;
        settings.visible[settings.visible_count++] = (uint32_t)number;
        at = *stop == ',' ? stop + 1 : stop;
    }
}

// "<function>:<n>[:<status>]", several separated by commas.
static void read_faults(void)
{
    const char *list = getenv("SIM_FAULT");
    for (const char *at = list; at != NULL && *at != '\0';) {
        const char *stop = at + strcspn(at, ",");
        const char *name_stop = at + strcspn(at, ":,");
        const char *count = name_stop < stop ? name_stop + 1 : stop;
        const char *count_stop = count + strcspn(count, ":,");
        uint64_t calls = 0;
        uint64_t status = DS_INTERNAL;
        bool good = (size_t)(name_stop - at) < sizeof faults[0].function && name_stop > at
            && fault_count < MAX_FAULTS && read_number(count, count_stop, &calls) && calls > 0
            && (count_stop == stop || read_number(count_stop + 1, stop, &status)) && status > 0
            && status <= INT32_MAX;
        if (!good) {
            refuse(DS_INVALID_ARGUMENT,
                   "SIM_FAULT is '%s'; it takes '<function>:<n>[:<status>]', %d at most, such as "
                   "'allocate:3:6'",
                   list, MAX_FAULTS);
            return;
        }
        struct fault *fault = &faults[fault_count++];
        memcpy(fault->function, at, (size_t)(name_stop - at));
        atomic_init(&fault->left, calls);
        fault->status = (DsStatus)status;
        at = *stop == ',' ? stop + 1 : stop;
    }
}

// "<kernel>[:<what>]".
static void read_wrong(void)
{
    static const char *const words[] = {
        [SIM_WRONG_RESULT] = "result", [SIM_WRONG_INPUT] = "input", [SIM_WRONG_BEHIND] = "behind"};
    const char *text = getenv("SIM_WRONG");
    if (text == NULL || *text == '\0') {
        return;
    }
    size_t length = strcspn(text, ":");
    const char *what = text[length] == ':' ? text + length + 1 : words[SIM_WRONG_RESULT];
    for (size_t i = SIM_WRONG_RESULT; i <= SIM_WRONG_BEHIND; i++) {
        if (strcmp(what, words[i]) == 0) {
            settings.wrong = (enum sim_wrong)i;
        }
    }
    DsStr kernel = {.data = text, .len = length};
    if (settings.wrong == SIM_RIGHT || length >= sizeof settings.wrong_kernel
        || sim_kernel_find(kernel) == NULL) {
        refuse(DS_INVALID_ARGUMENT,
               "SIM_WRONG is '%s'; it takes '<kernel>[:result|:input|:behind]', such as 'sim_cast'", text);
        return;
    }
    memcpy(settings.wrong_kernel, text, length);
}

static void read_settings(void)
{
    settings.memory_bytes = number_of("SIM_MEMORY_BYTES", UINT64_C(1) << 30) / PAGE_BYTES * PAGE_BYTES;
    if (settings.memory_bytes == 0) {
        refuse(DS_INVALID_ARGUMENT, "SIM_MEMORY_BYTES is less than a page of %d bytes", PAGE_BYTES);
    }
    settings.seed = number_of("SIM_SEED", 1);
    settings.max_delay_us = number_of("SIM_MAX_DELAY_US", 200);
    settings.compile_ms = number_of("SIM_COMPILE_MS", 200);
    read_visible_devices();
    read_faults();
    read_wrong();
}

const struct sim_settings *sim_settings(void)
{
    pthread_once(&settings_once, read_settings);
    return &settings;
}

DsStatus sim_fault(const char *function)
{
    sim_settings();
    for (size_t i = 0; i < fault_count; i++) {
        if (strcmp(faults[i].function, function) == 0 && atomic_load(&faults[i].left) > 0
            && atomic_fetch_sub(&faults[i].left, 1) == 1) {
            atomic_fetch_add(&faults_met, 1);
            return faults[i].status;
        }
    }
    return DS_OK;
}

// ---- SIM_REPORT: what the host did not give back.

static atomic_int live[SIM_HANDLES];

void sim_made(enum sim_handle kind)
{
    atomic_fetch_add(&live[kind], 1);
}

void sim_given_back(enum sim_handle kind)
{
    atomic_fetch_sub(&live[kind], 1);
}

__attribute__((destructor)) static void report(void)
{
    const char *wanted = getenv("SIM_REPORT");
    if (wanted == NULL || strcmp(wanted, "1") != 0) {
        return;
    }
    fprintf(stderr, "sim: live at the end: streams %d, events %d, blocks %d, prepared %d; faults met: %u\n",
            atomic_load(&live[SIM_STREAM]), atomic_load(&live[SIM_EVENT]),
            atomic_load(&live[SIM_BLOCK]), atomic_load(&live[SIM_PREPARED]),
            atomic_load(&faults_met));
}

// ---- Fork. The child has none of the threads that serve the streams, and their locks may be held.

static atomic_bool forked;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void note_fork(void)
{
    atomic_store(&forked, true);
}

static void register_fork(void)
{
    pthread_atfork(NULL, NULL, note_fork);
}

void sim_watch_fork(void)
{
    pthread_once(&fork_once, register_fork);
}

bool sim_forked(void)
{
    return atomic_load(&forked);
}

DsStatus sim_enter(const char *function, DsErrorSink *error)
{
    if (sim_forked()) {
        return sim_fail(error, DS_FORKED,
                        "%s: this is a child of fork; start it with exec, or fork before the first "
                        "use of a device",
                        function);
    }
    DsStatus injected = sim_fault(function);
    if (injected != DS_OK) {
        return sim_fail(error, injected, "SIM_FAULT makes this call of %s fail", function);
    }
    return DS_OK;
}
