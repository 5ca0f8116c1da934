// Events: timelines, counters that only grow. Streams raise them, the host raises them, and both
// wait for them; so they map to timeline semaphores rather than to the one-shot events of a driver.
// Where a driver has only one-shot events, keep a list of (value, driver event) here.
//
// A timeline that failed stays at its value: who waits for more gets the failure, who waits for
// what was reached before does not.

#include "sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

// A callback that waits for a value.
struct waiter {
    struct waiter *next;
    uint64_t value;
    DsEventCallback callback;
    void *user;
    DsStatus status;
};

struct DsEventObject {
    // The host's handle is one reference, each queued record or wait another: those still happen
    // after the host gave its handle up.
    atomic_uint references;
    pthread_mutex_t lock; // guards everything below
    pthread_cond_t changed;
    uint64_t value;
    uint64_t time_ns;
    struct sim_failure failure;
    struct waiter *waiters;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// Whether it is known if the timeline will stand at `value`, and how that ends.
static bool is_decided(const struct DsEventObject *event, uint64_t value, DsStatus *status)
{
    *status = event->value >= value ? DS_OK : event->failure.status;
    return event->value >= value || event->failure.status != DS_OK;
}

// Callbacks run without a lock held, so that they may call back into the plugin.
static void call_back(struct waiter *waiters)
{
    while (waiters != NULL) {
        struct waiter *waiter = waiters;
        waiters = waiter->next;
        waiter->callback(waiter->user, waiter->status);
        free(waiter);
    }
}

static void let_go(struct DsEventObject *event)
{
    if (atomic_fetch_sub(&event->references, 1) != 1) {
        return;
    }
    for (struct waiter *waiter = event->waiters; waiter != NULL; waiter = waiter->next) {
        waiter->status = DS_CANCELLED; // nobody is left who could raise the timeline
    }
    call_back(event->waiters);
    pthread_cond_destroy(&event->changed);
    pthread_mutex_destroy(&event->lock);
    free(event);
}

// Raises the timeline to `value`, or fails it when there is a failure.
static void raise_to(struct DsEventObject *event, uint64_t value, const struct sim_failure *failure)
{
    struct waiter *ready = NULL;
    struct waiter **ready_end = &ready;
    pthread_mutex_lock(&event->lock);
    if (event->failure.status == DS_OK) {
        if (failure->status != DS_OK) {
            event->failure = *failure;
        } else if (value > event->value) {
            event->value = value;
            event->time_ns = now_ns();
        }
    }
    for (struct waiter **link = &event->waiters; *link != NULL;) {
        struct waiter *waiter = *link;
        if (is_decided(event, waiter->value, &waiter->status)) {
            *link = waiter->next;
            waiter->next = NULL;
            *ready_end = waiter;
            ready_end = &waiter->next;
        } else {
            link = &waiter->next;
        }
    }
    pthread_cond_broadcast(&event->changed);
    pthread_mutex_unlock(&event->lock);
    call_back(ready);
}

// Blocks until it is decided whether the timeline reaches `value`; `failure` says why not.
static DsStatus wait_for(struct DsEventObject *event,
                         uint64_t value,
                         uint64_t timeout_ns,
                         struct sim_failure *failure)
{
    uint64_t deadline_ns = now_ns() + timeout_ns;
    bool forever = timeout_ns == DS_FOREVER || deadline_ns < timeout_ns;
    struct timespec deadline = {
        .tv_sec = (time_t)(deadline_ns / 1000000000),
        .tv_nsec = (long)(deadline_ns % 1000000000),
    };
    DsStatus status;
    bool decided;
    int code = 0;
    pthread_mutex_lock(&event->lock);
    while (!(decided = is_decided(event, value, &status)) && code == 0) {
        code = forever ? pthread_cond_wait(&event->changed, &event->lock)
                       : pthread_cond_timedwait(&event->changed, &event->lock, &deadline);
    }
    uint64_t stands_at = event->value;
    if (decided && status != DS_OK) {
        *failure = event->failure;
    }
    pthread_mutex_unlock(&event->lock);
    if (!decided) {
        status = DS_TIMEOUT;
        sim_failure_set(failure, status,
                        "the timeline stands at %" PRIu64 " after %" PRIu64 " ns, not at %" PRIu64,
                        stands_at, timeout_ns, value);
    }
    return status;
}

// ---- Queued work

struct event_work {
    struct sim_work work;
    struct DsEventObject *event;
    uint64_t value;
};

static void run_record(struct sim_work *work, struct sim_failure *failure)
{
    struct event_work *record = (struct event_work *)work;
    raise_to(record->event, record->value, failure);
}

static void run_wait(struct sim_work *work, struct sim_failure *failure)
{
    struct event_work *wait = (struct event_work *)work;
    wait_for(wait->event, wait->value, DS_FOREVER, failure);
}

static void drop_event(struct sim_work *work)
{
    let_go(((struct event_work *)work)->event);
}

static DsStatus queue_event(DsStream stream,
                            DsEvent event,
                            uint64_t value,
                            bool record,
                            DsErrorSink *error)
{
    const char *function = record ? "event_record" : "event_wait";
    DsStatus status = sim_enter(function, error);
    if (status != DS_OK) {
        return status;
    }
    if (stream == NULL || event == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "%s: the stream or event is null", function);
    }
    struct event_work *item = calloc(1, sizeof *item);
    if (item == NULL) {
        return sim_fail_host_memory(error);
    }
    atomic_fetch_add(&event->references, 1);
    item->work.run = record ? run_record : run_wait;
    item->work.drop = drop_event;
    item->work.even_after_failure = record;
    item->event = event;
    item->value = value;
    sim_stream_push(stream, &item->work, record ? "event_record_async" : "event_wait_async");
    return DS_OK;
}

// ---- The slots of the table, which stands in stream.c

DsStatus sim_event_create(DsDevice device, DsEvent *event, DsErrorSink *error)
{
    DsStatus status = sim_enter("event_create", error);
    if (status != DS_OK) {
        return status;
    }
    if (device == NULL || event == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "event_create: the device or the place is null");
    }
    DsEvent made = calloc(1, sizeof *made);
    if (made == NULL) {
        return sim_fail_host_memory(error);
    }
    atomic_init(&made->references, 1);
    pthread_mutex_init(&made->lock, NULL);
    pthread_condattr_t clock; // timeouts must not jump when somebody sets the time of day
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&made->changed, &clock);
    pthread_condattr_destroy(&clock);
    *event = made;
    sim_made(SIM_EVENT);
    return DS_OK;
}

void sim_event_destroy(DsEvent event)
{
    if (event != NULL && !sim_forked()) {
        sim_given_back(SIM_EVENT);
        let_go(event);
    }
}

DsStatus sim_event_record(DsStream stream, DsEvent event, uint64_t value, DsErrorSink *error)
{
    return queue_event(stream, event, value, true, error);
}

DsStatus sim_event_wait(DsStream stream, DsEvent event, uint64_t value, DsErrorSink *error)
{
    return queue_event(stream, event, value, false, error);
}

DsStatus sim_event_signal(DsEvent event, uint64_t value, DsStatus status, DsErrorSink *error)
{
    DsStatus entered = sim_enter("event_signal", error);
    if (entered != DS_OK) {
        return entered;
    }
    if (event == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "event_signal: the event is null");
    }
    struct sim_failure failure = {.status = DS_OK};
    if (status != DS_OK) {
        sim_failure_set(&failure, status, "the host failed the timeline with status %d", (int)status);
    }
    // Held while at work: whoever sees the point may give the event up before this returns.
    atomic_fetch_add(&event->references, 1);
    raise_to(event, value, &failure);
    let_go(event);
    return DS_OK;
}

DsStatus sim_event_query(DsEvent event, DsEventState *state, DsErrorSink *error)
{
    DsStatus status = sim_enter("event_query", error);
    if (status != DS_OK) {
        return status;
    }
    if (event == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "event_query: the event is null");
    }
    DsEventState filled = {.struct_size = 0};
    pthread_mutex_lock(&event->lock);
    filled.status = event->failure.status;
    filled.value = event->value;
    filled.time_ns = event->time_ns;
    pthread_mutex_unlock(&event->lock);
    if (!sim_give(state, &filled, sizeof filled)) {
        return sim_fail(error, DS_INVALID_ARGUMENT,
                        "event_query: the state is null or states no struct_size");
    }
    return DS_OK;
}

DsStatus sim_event_synchronize(DsEvent event, uint64_t value, uint64_t timeout_ns, DsErrorSink *error)
{
    DsStatus status = sim_enter("event_synchronize", error);
    if (status != DS_OK) {
        return status;
    }
    if (event == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "event_synchronize: the event is null");
    }
    struct sim_failure failure = {.status = DS_OK};
    status = wait_for(event, value, timeout_ns, &failure);
    return status == DS_OK ? DS_OK : sim_fail(error, status, "event_synchronize: %s", failure.message);
}

DsStatus sim_event_on_ready(DsEvent event,
                            uint64_t value,
                            DsEventCallback callback,
                            void *user,
                            DsErrorSink *error)
{
    DsStatus status = sim_enter("event_on_ready", error);
    if (status != DS_OK) {
        return status;
    }
    if (event == NULL || callback == NULL) {
        return sim_fail(error, DS_INVALID_ARGUMENT, "event_on_ready: the event or callback is null");
    }
    struct waiter *waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL) {
        return sim_fail_host_memory(error);
    }
    waiter->value = value;
    waiter->callback = callback;
    waiter->user = user;
    pthread_mutex_lock(&event->lock);
    bool decided = is_decided(event, value, &waiter->status);
    if (!decided) {
        struct waiter **end = &event->waiters;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = waiter;
    }
    pthread_mutex_unlock(&event->lock);
    if (decided) {
        call_back(waiter);
    }
    return DS_OK;
}
