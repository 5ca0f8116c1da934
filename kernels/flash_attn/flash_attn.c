/* Attention of a batch and of packed sequences, on a CPU: as ds_cpu_attend.h has it, with keys and values
 * that lie one behind the other.
 */
#include "ds_cpu_attend.h"

/* flash_attn(q, k, v, alibi, scale, ...) -> (o, lse) and
 * flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, scale, ...) -> (o, lse). */
enum { K = Q + 1, V, STARTS };

static geometry geometry_of_batch(const ds_call *call) { return geometry_of(call, Q, K, -1); }
static geometry geometry_of_packed(const ds_call *call) { return geometry_of(call, Q, K, STARTS); }

static void bring_neighbours(panel *p, const ds_call *call, const geometry *g, int64_t first, int64_t n) {
    const tokens k = tokens_of(call, K), v = tokens_of(call, V);
    const int64_t token = p->s.first_key + first;
    bring(p->k, token_at(&k, p->s.batch, token, p->group), k.token, n, g->d, k.dtype);
    bring(p->v, token_at(&v, p->s.batch, token, p->group), v.token, n, g->d, v.dtype);
}

static const layout BATCH = {-1, 3, 4, 5, geometry_of_batch, bring_neighbours, 0};
static const layout PACKED = {STARTS, 5, 6, 7, geometry_of_packed, bring_neighbours, 0};

KERNEL(ds_flash_attn, BATCH);
KERNEL(ds_flash_attn_varlen, PACKED);
