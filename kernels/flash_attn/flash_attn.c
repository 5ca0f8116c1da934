/* Attention of a batch and of packed sequences, on a CPU: as ds_cpu_flash.h has it, with keys and values
 * that lie one behind the other.
 */
#include "ds_cpu_flash.h"

/* flash_attn(q, k, v, alibi, scale, ...) -> (o, lse) and
 * flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, scale, ...) -> (o, lse). */
enum { K = Q + 1, V, STARTS };

static geometry geometry_of_batch(const ds_call *call) { return geometry_of(call, Q, K, -1); }
static geometry geometry_of_packed(const ds_call *call) { return geometry_of(call, Q, K, STARTS); }

static void neighbours(ds_heads *at_k, ds_heads *at_v, const panel *p, const ds_call *call, int64_t first, int64_t n) {
    const tokens k = tokens_of(call, K), v = tokens_of(call, V);
    const int64_t token = p->s.first_key + first;
    ds_heads_along(at_k, 0, token_at(&k, p->s.batch, token, p->group), k.token, n, k.dtype);
    ds_heads_along(at_v, 0, token_at(&v, p->s.batch, token, p->group), v.token, n, v.dtype);
}

static const layout BATCH = {-1, 3, 4, 5, geometry_of_batch, neighbours, 0};
static const layout PACKED = {STARTS, 5, 6, 7, geometry_of_packed, neighbours, 0};

KERNEL(ds_flash_attn, BATCH);
KERNEL(ds_flash_attn_varlen, PACKED);
