#include "simd_avx2.h"

#include "backward.h"
#include "forward.h"

const na2d::Kernels na2d::kAvx2 = {kLanes, kTileRows, forward, query_gradient, key_gradient};
