// Errors, strings and sized structs: the rules of the boundary, kept in one place.
// Nothing here is about a simulator; a plugin that starts from this one keeps the file.

#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// ---- Sized structs. Both sides state how much of a struct they know; neither goes beyond that.

// Whole fields only: no field is larger than 8 bytes, so a cut at a multiple of 8 halves none.
static size_t whole_fields(size_t bytes)
{
    return bytes / 8 * 8;
}

void sim_take(void *own, size_t own_bytes, const void *theirs, size_t their_bytes)
{
    memset(own, 0, own_bytes);
    if (theirs != NULL) {
        memcpy(own, theirs, whole_fields(their_bytes < own_bytes ? their_bytes : own_bytes));
    }
}

bool sim_give(void *theirs, const void *own, size_t own_bytes)
{
    size_t room = sim_stated_bytes(theirs);
    if (room < sizeof(uint32_t)) {
        return false;
    }
    uint32_t filled = (uint32_t)(room < own_bytes ? room : own_bytes);
    memcpy(theirs, own, filled);
    memcpy(theirs, &filled, sizeof filled);
    return true;
}

size_t sim_stated_bytes(const void *theirs)
{
    uint32_t bytes = 0;
    if (theirs != NULL) {
        memcpy(&bytes, theirs, sizeof bytes);
    }
    return bytes;
}

// ---- Errors

// The longest prefix of at most `limit` bytes that does not end inside a character.
static size_t utf8_prefix(const char *text, size_t len, size_t limit)
{
    if (len <= limit) {
        return len;
    }
    while (limit > 0 && ((unsigned char)text[limit] & 0xC0) == 0x80) {
        limit--;
    }
    return limit;
}

DsStatus sim_fail_with(DsErrorSink *error, struct sim_details details, const char *format, ...)
{
    size_t room = whole_fields(sim_stated_bytes(error));
    if (room == 0) {
        return details.code;
    }
    DsErrorSink sink;
    sim_take(&sink, sizeof sink, error, room);
    sink.code = details.code;
    sink.vendor_code = details.vendor_code;
    sink.flags = details.flags;
    sink.reason = details.reason;
    sink.a = details.a;
    sink.b = details.b;
    sink.message_len = 0;

    // A sink of an older host may end before `message`; it read as null then.
    if (sink.message != NULL) {
        char text[512];
        va_list arguments;
        va_start(arguments, format);
        int wanted = vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        size_t len = wanted < 0 ? 0 : (size_t)wanted;
        size_t limit = sink.message_capacity < sizeof text - 1 ? sink.message_capacity : sizeof text - 1;
        size_t written = utf8_prefix(text, len, limit);
        memcpy(sink.message, text, written);
        sink.message_len = (uint32_t)written;
        if (written < len) {
            sink.flags |= DS_ERROR_TRUNCATED;
        }
    }
    memcpy(error, &sink, room < sizeof sink ? room : sizeof sink);
    return details.code;
}

DsStatus sim_fail_host_memory(DsErrorSink *error)
{
    // Not DS_OUT_OF_MEMORY: that one is about the device, and the host answers it by emptying its
    // pool of device memory.
    return sim_fail_with(error, (struct sim_details){.code = DS_INTERNAL, .flags = DS_ERROR_RETRYABLE},
                         "the process has no memory left for the plugin's own records");
}

void sim_failure_set(struct sim_failure *failure, DsStatus status, const char *format, ...)
{
    failure->status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->message, sizeof failure->message, format, arguments);
    va_end(arguments);
}

// ---- Strings

DsStr sim_str(const char *text)
{
    return (DsStr){.data = text, .len = strlen(text)};
}

bool sim_str_is(DsStr str, const char *text)
{
    size_t len = strlen(text);
    return str.len == len && (len == 0 || (str.data != NULL && memcmp(str.data, text, len) == 0));
}

// ---- The host's log. Written once by the entry, before any other call.

static void (*log_line)(void *context, uint32_t level, DsStr message);
static void *log_context;

void sim_log_to(const DsHost *host)
{
    log_line = host->log;
    log_context = host->context;
}

void sim_log(uint32_t level, const char *message)
{
    if (log_line != NULL) {
        log_line(log_context, level, sim_str(message));
    }
}
