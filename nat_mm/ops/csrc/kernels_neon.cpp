#include "simd_neon.h"

#include "forward.h"
#include "key_gradient.h"
#include "query_gradient.h"

const na2d::Kernels na2d::kNeon = {kLanes, kTileRows, forward, query_gradient, key_gradient};
