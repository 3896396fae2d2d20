// 4 lanes with the vector extension of GCC and Clang: SSE2, or whatever the machine has.

#pragma once

#include <cstring>
#include "plan.h"

namespace {

using na2d::BFloat16;

constexpr int kLanes = 4;
// 2 x 4 sums, 4 operands shared by the rows and 1 of a row: 13 of SSE2's 16 registers.
constexpr int kTileRows = 2;
constexpr int kChunk = 4;

using Vec = float __attribute__((vector_size(16)));
using Int = int32_t __attribute__((vector_size(16)));

inline Vec broadcast(float x) { return Vec{x, x, x, x}; }

inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline Int load(const int32_t* p) {
  Int x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void store(float* p, Vec x) { std::memcpy(p, &x, sizeof x); }
inline Vec in_register(Vec x) { return x; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
inline Vec select(Int mask, Vec a, Vec b) { return (Vec)((mask & (Int)a) | (~mask & (Int)b)); }
inline Vec maximum(Vec a, Vec b) { return select(a > b, a, b); }

using Mask = Int;

inline Mask greater(Int a, int32_t b) { return a > Int{b, b, b, b}; }

// x where the mask is set, otherwise 0.
inline Vec keep(Mask mask, Vec x) { return (Vec)(mask & (Int)x); }

// Reads p[index[lane]] where the mask is set, otherwise 0; 0 <= index < kLanes.
inline Vec pick(const float* p, Int index, Mask mask) {
  return keep(mask, Vec{p[index[0]], p[index[1]], p[index[2]], p[index[3]]});
}

// 2^x to within 2e-7, for x < 128; exactly 1 for 0, and 0 where the result would be subnormal.
inline Vec exp2(Vec x) {
  // Adding this to a small number leaves the nearest integer in the low bits.
  const Vec shift = broadcast(12582912.0f);
  const Vec shifted = x + shift;
  const Vec fraction = x - (shifted - shift);
  Vec y = broadcast(1.32647273e-3f);
  y = multiply_add(y, fraction, broadcast(9.67151273e-3f));
  y = multiply_add(y, fraction, broadcast(5.55073374e-2f));
  y = multiply_add(y, fraction, broadcast(2.40222421e-1f));
  y = multiply_add(y, fraction, broadcast(6.93146978e-1f));
  y = multiply_add(y, fraction, broadcast(1.0f));
  y = (Vec)((Int)y + (((Int)shifted - (Int)shift) << 23));
  const Int too_small = x < broadcast(-126.0f);
  return (Vec)((Int)y & ~too_small);
}

// Loads kLanes of the `left` channels at p; `left` is at least kLanes.
inline Vec load_channels(const float* p, int) { return load(p); }

inline Vec load_channels(const BFloat16* p, int) {
  return (Vec)Int{int32_t(uint32_t(p[0].bits) << 16), int32_t(uint32_t(p[1].bits) << 16),
                  int32_t(uint32_t(p[2].bits) << 16), int32_t(uint32_t(p[3].bits) << 16)};
}

inline void store_channels(float* p, int, Vec x) { store(p, x); }

// Rounds to nearest, ties to even; a NaN stays NaN.
inline void store_channels(BFloat16* p, int, Vec x) {
  const Int bits = (Int)x;
  const Int rounded = bits + ((bits >> 16) & 1) + 0x7fff;
  const Int quiet = {0x7fc00000, 0x7fc00000, 0x7fc00000, 0x7fc00000};
  const Int half = (Int)select(x == x, (Vec)rounded, (Vec)quiet) >> 16;
  for (int channel = 0; channel < kLanes; ++channel) p[channel].bits = uint16_t(half[channel]);
}

// Stores kLanes channels.
template <class T>
inline void stream_channels(T* p, Vec x) {
  store_channels(p, kLanes, x);
}

// Loads 4 channels of a row.
inline Vec load_quad(const float* p, int) { return load(p); }

// Inverse of load_quad.
inline void store_quad(float* p, int, Vec x) { store(p, x); }

// Transposes a 4 x 4 block of numbers.
inline void transpose_quads(Vec x[4]) {
  const Vec a = x[0], b = x[1], c = x[2], d = x[3];
  for (int j = 0; j < 4; ++j) x[j] = Vec{a[j], b[j], c[j], d[j]};
}

}  // namespace
