// Streams: in-order queues. Each has a thread that takes its items one after another.
//
// On real hardware a stream is a command queue and the thread is the hardware. Before each item
// the thread sleeps for a random while (SIM_SEED, SIM_MAX_DELAY_US): whoever forgets to wait for
// work sees wrong results here, instead of rarely and elsewhere.
//
// The first failure of an item stays with the stream. Items behind it do not run; only records do,
// and they fail their timelines. That is how a failure reaches whoever depends on the work.

#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void let_go(struct DsStreamObject *stream)
{
    if (atomic_fetch_sub(&stream->references, 1) == 1) {
        pthread_mutex_destroy(&stream->lock);
        pthread_cond_destroy(&stream->changed);
        free(stream);
    }
}

// ---- The stream's thread

// Marsaglia's xorshift, "Xorshift RNGs" (2003), with the triple 13, 7, 17.
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void delay(struct DsStreamObject *stream)
{
    uint64_t most = sim_settings()->max_delay_us;
    if (most == 0) {
        return;
    }
    uint64_t delay_us = next_random(&stream->random) % most;
    struct timespec time = {
        .tv_sec = (time_t)(delay_us / 1000000),
        .tv_nsec = (long)(delay_us % 1000000 * 1000),
    };
    nanosleep(&time, NULL);
}

// The next item; null when the stream is closed and empty.
static struct sim_work *take(struct DsStreamObject *stream)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->first == NULL && !stream->closed) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    struct sim_work *work = stream->first;
    if (work != NULL) {
        stream->first = work->next;
        if (stream->first == NULL) {
            stream->last = &stream->first;
        }
    }
    pthread_mutex_unlock(&stream->lock);
    return work;
}

static void run(struct DsStreamObject *stream, struct sim_work *work, struct sim_failure *failure)
{
    bool sound = failure->status == DS_OK;
    if (sound && work->fault != DS_OK) {
        sim_failure_set(failure, work->fault, "SIM_FAULT makes this %s fail", work->fault_name);
    }
    if (failure->status == DS_OK || work->even_after_failure) {
        work->run(work, failure);
    }
    if (sound && failure->status != DS_OK) {
        // Points carry a status only; the words would be lost with whoever never synchronizes.
        char line[256];
        snprintf(line, sizeof line, "a stream of %s stops: %s", stream->device->uuid, failure->message);
        sim_log(DS_LOG_WARN, line);
    }
}

static void leave_device(struct DsStreamObject *stream)
{
    struct sim_device *device = stream->device;
    pthread_mutex_lock(&device->lock);
    struct DsStreamObject **link = &device->streams;
    while (*link != stream) {
        link = &(*link)->next;
    }
    *link = stream->next;
    pthread_mutex_unlock(&device->lock);
}

static void *serve(void *argument)
{
    struct DsStreamObject *stream = argument;
    struct sim_failure failure = {.status = DS_OK};
    for (struct sim_work *work; (work = take(stream)) != NULL;) {
        delay(stream);
        run(stream, work, &failure);
        if (work->drop != NULL) {
            work->drop(work);
        }
        free(work);
        pthread_mutex_lock(&stream->lock);
        stream->failure = failure;
        stream->done++;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->lock);
    }
    leave_device(stream);
    let_go(stream);
    return NULL;
}

// ---- What the other files do with a stream

void sim_stream_push(DsStream stream, struct sim_work *work, const char *fault_name)
{
    work->next = NULL;
    work->fault = sim_fault(fault_name);
    work->fault_name = fault_name;
    pthread_mutex_lock(&stream->lock);
    *stream->last = work;
    stream->last = &work->next;
    stream->queued++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

// Tells the stream's failure, if it has one. The caller holds its lock.
static DsStatus tell_failure(const struct DsStreamObject *stream, DsErrorSink *error)
{
    if (stream->failure.status == DS_OK) {
        return DS_OK;
    }
    return sim_fail_with(error,
                         (struct sim_details){.code = stream->failure.status,
                                              .flags = DS_ERROR_STREAM_POISONED},
                         "%s", stream->failure.message);
}

DsStatus sim_stream_drain(DsStream stream, DsErrorSink *error)
{
    pthread_mutex_lock(&stream->lock);
    uint64_t target = stream->queued;
    while (stream->done < target) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    DsStatus status = tell_failure(stream, error);
    pthread_mutex_unlock(&stream->lock);
    return status;
}

static bool is_given_up(DsStream stream)
{
    pthread_mutex_lock(&stream->lock);
    bool closed = stream->closed;
    pthread_mutex_unlock(&stream->lock);
    return closed;
}

DsStatus sim_streams_drain(struct sim_device *device, DsErrorSink *error)
{
    pthread_mutex_lock(&device->lock);
    size_t count = 0;
    for (struct DsStreamObject *at = device->streams; at != NULL; at = at->next) {
        count++;
    }
    struct DsStreamObject **streams = calloc(count + 1, sizeof *streams);
    if (streams != NULL) {
        count = 0;
        for (struct DsStreamObject *at = device->streams; at != NULL; at = at->next) {
            atomic_fetch_add(&at->references, 1);
            streams[count++] = at;
        }
    }
    pthread_mutex_unlock(&device->lock);
    if (streams == NULL) {
        return sim_fail_host_memory(error);
    }
    DsStatus first = DS_OK;
    for (size_t i = 0; i < count; i++) {
        // How a stream ended that was given up, nobody asks any more.
        bool asked = first == DS_OK && !is_given_up(streams[i]);
        DsStatus status = sim_stream_drain(streams[i], asked ? error : NULL);
        first = asked ? status : first;
        let_go(streams[i]);
    }
    free(streams);
    return first;
}

// ---- The table

// Starts the thread, detached: it lets go of the stream when it is done, nobody joins it. Signals
// are for the host's threads, so that its handlers never run on one of ours.
static int start_thread(struct DsStreamObject *stream)
{
    pthread_attr_t attributes;
    int code = pthread_attr_init(&attributes);
    if (code != 0) {
        return code;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    code = pthread_create(&thread, &attributes, serve, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return code;
}

// Makes a stream in the device's list. The caller holds the device's lock.
static DsStatus
start_stream(struct sim_device *device, struct DsStreamObject **made, DsErrorSink *error)
{
    struct DsStreamObject *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return sim_fail_host_memory(error);
    }
    stream->device = device;
    stream->handles = 1;
    atomic_init(&stream->references, 2); // the handles' and the thread's
    stream->last = &stream->first;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    // Distinct and not zero for each stream of each device; the factor spreads the bits.
    uint64_t number = device->streams_made++ * SIM_DEVICES + device->number + 1;
    stream->random = (sim_settings()->seed << 32 ^ number) * UINT64_C(0x9E3779B97F4A7C15) | 1;

    int code = start_thread(stream);
    if (code != 0) {
        pthread_mutex_destroy(&stream->lock);
        pthread_cond_destroy(&stream->changed);
        free(stream);
        return sim_fail_with(error,
                             (struct sim_details){.code = DS_INTERNAL,
                                                  .vendor_code = code,
                                                  .flags = DS_ERROR_RETRYABLE},
                             "stream_create: no thread for the stream: %s", strerror(code));
    }
    stream->next = device->streams;
    device->streams = stream;
    *made = stream;
    return DS_OK;
}

static DsStatus
stream_create(DsDevice handle, uint32_t flags, DsStream *stream, DsErrorSink *error)
{
    DsStatus status = sim_enter("stream_create", error);
    if (status != DS_OK) {
        return status;
    }
    if (handle == NULL || stream == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "stream_create: the device or the place is null");
    }
    if ((flags & ~(uint32_t)DS_STREAM_DEFAULT) != 0) {
        return sim_fail(error, DS_UNSUPPORTED, "stream_create: sim knows no flags beyond %#x, found %#x",
                        (unsigned)DS_STREAM_DEFAULT, (unsigned)flags);
    }
    struct sim_device *device = handle->device;
    pthread_mutex_lock(&device->lock);
    if ((flags & DS_STREAM_DEFAULT) == 0) {
        status = start_stream(device, stream, error);
    } else if (device->default_stream != NULL) {
        device->default_stream->handles++;
        *stream = device->default_stream;
    } else {
        status = start_stream(device, &device->default_stream, error);
        if (status == DS_OK) {
            *stream = device->default_stream;
        }
    }
    pthread_mutex_unlock(&device->lock);
    if (status == DS_OK) {
        sim_made(SIM_STREAM);
    }
    return status;
}

// Returns at once; the thread goes when the queue is empty. Waiting here would hang a caller that
// raises, after this call, the point for which the queue waits.
static void stream_destroy(DsStream stream)
{
    if (stream == NULL || sim_forked()) {
        return;
    }
    sim_given_back(SIM_STREAM);
    struct sim_device *device = stream->device;
    pthread_mutex_lock(&device->lock);
    bool gone = --stream->handles == 0;
    if (gone && device->default_stream == stream) {
        device->default_stream = NULL;
    }
    pthread_mutex_unlock(&device->lock);
    if (gone) {
        pthread_mutex_lock(&stream->lock);
        stream->closed = true;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->lock);
        let_go(stream);
    }
}

static DsStatus stream_synchronize(DsStream stream, DsErrorSink *error)
{
    DsStatus status = sim_enter("stream_synchronize", error);
    if (status != DS_OK) {
        return status;
    }
    if (stream == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "stream_synchronize: the stream is null");
    }
    return sim_stream_drain(stream, error);
}

static DsStatus stream_query(DsStream stream, DsErrorSink *error)
{
    DsStatus status = sim_enter("stream_query", error);
    if (status != DS_OK) {
        return status;
    }
    if (stream == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "stream_query: the stream is null");
    }
    pthread_mutex_lock(&stream->lock);
    uint64_t pending = stream->queued - stream->done;
    status = pending == 0
        ? tell_failure(stream, error)
        : sim_fail(error, DS_NOT_READY, "%llu items are pending", (unsigned long long)pending);
    pthread_mutex_unlock(&stream->lock);
    return status;
}

// `stream_native` and `stream_wrap` are left out: no vendor's library takes a sim stream. The host
// answers for an empty slot.
const DsStreamTable sim_stream_table = {
    .struct_size = sizeof(DsStreamTable),
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_synchronize = stream_synchronize,
    .stream_query = stream_query,
    .event_create = sim_event_create,
    .event_destroy = sim_event_destroy,
    .event_record = sim_event_record,
    .event_wait = sim_event_wait,
    .event_signal = sim_event_signal,
    .event_query = sim_event_query,
    .event_synchronize = sim_event_synchronize,
    .event_on_ready = sim_event_on_ready,
};
