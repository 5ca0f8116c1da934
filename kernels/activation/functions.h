/* Activation functions of tiles. */
#ifndef DS_ACTIVATION_FUNCTIONS_H
#define DS_ACTIVATION_FUNCTIONS_H

#include "ds_cpu_activation.h"
#include "ds_cpu_elementwise.h"

/* What a call's kind is for results of dtype `t`. */
DS_INLINE int64_t kind_of(const ds_call *call, uint32_t t) { return ds_kind_for(call->attributes[0].i, t); }

/* `DS_WITH_KIND` for each vector `v` of a tile. */
#define EACH_OF(v, k, kind, statement) \
    DS_WITH_KIND(k, kind, for (int v = 0; v < DS_TILE_VECTORS; v++) statement)

#endif
