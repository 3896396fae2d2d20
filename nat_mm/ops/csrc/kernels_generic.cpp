#include "simd_generic.h"

#include "backward.h"
#include "forward.h"

const na2d::Kernels na2d::kGeneric = {kLanes, kTileRows, forward, query_gradient, key_gradient};
