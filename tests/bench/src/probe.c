/* What the machine can do, asked over stdin (peer.rs): bandwidth of a copy and of a triad, each with
 * plain and with non-temporal stores, the peaks of fused multiply-adds and of pairs of bf16, and the pinned Adam loop. */
#ifdef PINNED
#define main pinned_main
#include PINNED
#undef main
#endif
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { LANES = 16, PAGE = 2 << 20, FMA_STEPS = 1 << 20, FMA_SUMS = 12 };
typedef float vec __attribute__((vector_size(LANES * 4)));

static float *buffers[4];
static size_t elements;
static volatile float sink;

static float *room(size_t n) {
    size_t bytes = (n * 4 + PAGE - 1) & ~(size_t)(PAGE - 1);
    float *p = aligned_alloc(PAGE, bytes);
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static inline void stream(float *to, vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)v);
#elif defined(__SSE2__)
    for (int i = 0; i < LANES; i += 4) _mm_stream_ps(to + i, _mm_setr_ps(v[i], v[i + 1], v[i + 2], v[i + 3]));
#else
    *(vec *)to = v;
#endif
}

/* Each thread takes its part of the whole vectors, in one piece. */
#define EACH(body)                                                                     \
    _Pragma("omp parallel for schedule(static)") for (size_t i = 0; i < elements; i += LANES) { body; }
#define AT(b) (*(vec *)(buffers[b] + i))

static void copy(void) { EACH(AT(0) = AT(1) * 1.0001f) }
static void copy_nt(void) { EACH(stream(buffers[0] + i, AT(1) * 1.0001f)) }
static void update(void) { EACH(AT(0) = AT(0) * 1.0001f) }
static void fill(void) { EACH(AT(0) = (vec){0} + 1.0001f) }
static void fill_nt(void) { EACH(stream(buffers[0] + i, (vec){0} + 1.0001f)) }
static void read_all(void) {
    float total = 0;
#pragma omp parallel for schedule(static) reduction(+ : total)
    for (size_t i = 0; i < elements / (8 * LANES); i++) {
        vec sum = {0};
        for (int v = 0; v < 8; v++) sum += *(vec *)(buffers[0] + (8 * i + v) * LANES);
        total += sum[0] + sum[LANES - 1];
    }
    sink = total;
}
static void triad(void) { EACH(AT(0) = AT(1) + AT(2) * 3.0f) }
static void triad_nt(void) { EACH(stream(buffers[0] + i, AT(1) + AT(2) * 3.0f)) }

/* 2 * LANES * FMA_SUMS * FMA_STEPS operations a thread. */
static void fma_peak(void) {
#pragma omp parallel
    {
        /* Every loop over the sums is written out: one that is not would keep them in memory. */
        vec sums[FMA_SUMS], a = (vec){0} + 0.999f, b = (vec){0} + 1e-3f;
#pragma GCC unroll 12
        for (int s = 0; s < FMA_SUMS; s++) sums[s] = b * (float)s;
        for (int step = 0; step < FMA_STEPS; step++) {
#pragma GCC unroll 12
            for (int s = 0; s < FMA_SUMS; s++) {
                sums[s] = sums[s] * a + b;
                __asm__ volatile("" : "+v"(sums[s]));
            }
        }
        float total = 0;
#pragma GCC unroll 12
        for (int s = 0; s < FMA_SUMS; s++) total += sums[s][0];
        sink = total;
    }
}

/* The same of pairs of bf16, each two operations more, where that is faster: on Intel's CPUs, which have
 * AVX512_FP16, it is not. */
#if defined(__AVX512BF16__) && !defined(__AVX512FP16__)
static void pairs_peak(void) {
#pragma omp parallel
    {
        vec sums[FMA_SUMS], a = (vec){0} + 0.999f, b = (vec){0} + 1e-3f;
#pragma GCC unroll 12
        for (int s = 0; s < FMA_SUMS; s++) sums[s] = b * (float)s;
        for (int step = 0; step < FMA_STEPS / 2; step++) {
#pragma GCC unroll 12
            for (int s = 0; s < FMA_SUMS; s++) {
                sums[s] = (vec)_mm512_dpbf16_ps((__m512)sums[s], (__m512bh)a, (__m512bh)b);
                __asm__ volatile("" : "+v"(sums[s]));
            }
        }
        float total = 0;
#pragma GCC unroll 12
        for (int s = 0; s < FMA_SUMS; s++) total += sums[s][0];
        sink = total;
    }
}
#else
static void pairs_peak(void) { fma_peak(); }
#endif

#ifdef PINNED
static void pinned_adam(void) {
#pragma omp parallel
    {
        size_t part = elements / omp_get_num_threads(), at = part * omp_get_thread_num();
        adam(buffers[0] + at, buffers[1] + at, buffers[2] + at, buffers[3] + at, part);
    }
}
#endif

static const struct { const char *name; void (*run)(void); int buffers; } works[] = {
    {"copy", copy, 2}, {"copy_nt", copy_nt, 2}, {"triad", triad, 3}, {"triad_nt", triad_nt, 3},
    {"read", read_all, 1}, {"update", update, 1}, {"fill", fill, 1}, {"fill_nt", fill_nt, 1},
    {"fma", fma_peak, 0}, {"pairs", pairs_peak, 0},
#ifdef PINNED
    {"adam", pinned_adam, 4},
#endif
};

int main(void) {
    char line[256], name[64];
    void (*run)(void) = 0;
    int calls;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "setup %63s %zu", name, &elements) == 2) {
            run = 0;
            for (size_t w = 0; w < sizeof works / sizeof *works; w++) {
                if (strcmp(works[w].name, name)) continue;
                run = works[w].run;
                const float start[] = {.5f, 1e-3f, 1e-4f, 1e-6f};
                for (int b = 0; b < works[w].buffers; b++) {
                    buffers[b] = room(elements);
                    EACH(AT(b) = (vec){0} + start[b])
                }
            }
            puts(run ? "0" : "error: no such work here");
        } else if (run && sscanf(line, "run %d", &calls) == 1) {
            if (!elements) run(); /* what goes through memory has nothing to warm */
            double start = omp_get_wtime();
            for (int c = 0; c < calls; c++) run();
            printf("%.9f\n", (omp_get_wtime() - start) / calls);
        } else {
            puts("error: not understood");
        }
        fflush(stdout);
    }
    return 0;
}
