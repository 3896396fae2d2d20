// 4 lanes of NEON, which every 64-bit ARM processor has.

#pragma once

#include <arm_neon.h>

#include "plan.h"

namespace {

using na2d::BFloat16;

constexpr int kLanes = 4;
// 3 x 7 sums, 7 operands shared by the rows and 1 of a row: 29 of the 32 registers.
constexpr int kTileRows = 3;
constexpr int kChunk = 7;

using Vec = float32x4_t;
using Int = int32x4_t;

inline Vec broadcast(float x) { return vdupq_n_f32(x); }
inline Vec load(const float* p) { return vld1q_f32(p); }
inline Int load(const int32_t* p) { return vld1q_s32(p); }
inline void store(float* p, Vec x) { vst1q_f32(p, x); }
inline Vec in_register(Vec x) { return x; }
inline Vec multiply_add(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
inline Vec maximum(Vec a, Vec b) { return vmaxq_f32(a, b); }

using Mask = uint32x4_t;

inline Mask greater(Int a, int32_t b) { return vcgtq_s32(a, vdupq_n_s32(b)); }

// x where the mask is set, otherwise 0.
inline Vec keep(Mask mask, Vec x) {
  return vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(x)));
}

// Reads p[index[lane]] where the mask is set, otherwise 0; 0 <= index < kLanes.
inline Vec pick(const float* p, Int index, Mask mask) {
  const Int first_byte = vdupq_n_s32(0x03020100);
  const uint8x16_t bytes =
      vreinterpretq_u8_s32(vmlaq_s32(first_byte, index, vdupq_n_s32(0x04040404)));
  const uint8x16_t numbers = vreinterpretq_u8_f32(load(p));
  return keep(mask, vreinterpretq_f32_u8(vqtbl1q_u8(numbers, bytes)));
}

// 2^x to within 2e-7, for x < 128; exactly 1 for 0, and 0 where the result would be subnormal.
inline Vec exp2(Vec x) {
  const Vec whole = vrndmq_f32(x);
  const Vec fraction = vsubq_f32(x, whole);
  Vec y = broadcast(1.86713034e-3f);
  y = multiply_add(y, fraction, broadcast(9.01702974e-3f));
  y = multiply_add(y, fraction, broadcast(5.57999135e-2f));
  y = multiply_add(y, fraction, broadcast(2.40164450e-1f));
  y = multiply_add(y, fraction, broadcast(6.93151312e-1f));
  y = multiply_add(y, fraction, broadcast(1.0f));
  const Int exponent = vshlq_n_s32(vcvtq_s32_f32(whole), 23);
  const Int power = vaddq_s32(vreinterpretq_s32_f32(y), exponent);
  const Mask too_small = vcltq_f32(x, broadcast(-126.0f));
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_s32(power), too_small));
}

// Loads kLanes of the `left` channels at p; `left` is at least kLanes.
inline Vec load_channels(const float* p, int) { return load(p); }

inline Vec load_channels(const BFloat16* p, int) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
}

inline void store_channels(float* p, int, Vec x) { store(p, x); }

// Rounds to nearest, ties to even; a NaN stays NaN.
inline void store_channels(BFloat16* p, int, Vec x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t half = vbslq_u32(vceqq_f32(x, x), rounded, vdupq_n_u32(0x7fc00000));
  vst1_u16(&p->bits, vshrn_n_u32(half, 16));
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
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1]));
  const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3]));
  const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
  x[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  x[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  x[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  x[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

}  // namespace
