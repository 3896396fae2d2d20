#include "simd_avx512.h"

#include "backward.h"
#include "forward.h"

const na2d::Kernels na2d::kAvx512 = {kLanes, kTileRows, forward, query_gradient, key_gradient};
