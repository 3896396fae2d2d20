// 8 lanes of AVX2 and FMA.

#pragma once

#include <immintrin.h>

#include "plan.h"

namespace {

using na2d::BFloat16;

constexpr int kLanes = 8;
// 2 x 4 sums, 4 operands shared by the rows and 1 of a row: 13 of the 16 registers.
constexpr int kTileRows = 2;
constexpr int kChunk = 4;

using Vec = __m256;
using Int = __m256i;

inline Vec broadcast(float x) { return _mm256_set1_ps(x); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Int load(const int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
// Forces x into a register; otherwise GCC reloads it for each use.
inline Vec in_register(Vec x) {
  asm("" : "+x"(x));
  return x;
}

inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec maximum(Vec a, Vec b) { return _mm256_max_ps(a, b); }

using Mask = __m256;

inline Mask greater(Int a, int32_t b) {
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, _mm256_set1_epi32(b)));
}

// x where the mask is set, otherwise 0.
inline Vec keep(Mask mask, Vec x) { return _mm256_and_ps(mask, x); }

// Reads p[index[lane]] where the mask is set, otherwise 0; 0 <= index < kLanes.
inline Vec pick(const float* p, Int index, Mask mask) {
  return keep(mask, _mm256_permutevar8x32_ps(load(p), index));
}

// 2^x to within 2e-7, for x < 128; exactly 1 for 0, and 0 where the result would be subnormal.
inline Vec exp2(Vec x) {
  const Vec whole = _mm256_floor_ps(x);
  const Vec fraction = _mm256_sub_ps(x, whole);
  Vec y = broadcast(1.86713034e-3f);
  y = multiply_add(y, fraction, broadcast(9.01702974e-3f));
  y = multiply_add(y, fraction, broadcast(5.57999135e-2f));
  y = multiply_add(y, fraction, broadcast(2.40164450e-1f));
  y = multiply_add(y, fraction, broadcast(6.93151312e-1f));
  y = multiply_add(y, fraction, broadcast(1.0f));
  const Int exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
  y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), exponent));
  return _mm256_and_ps(y, _mm256_cmp_ps(x, broadcast(-126.0f), _CMP_NLT_UQ));
}

// Loads kLanes of the `left` channels at p; `left` is at least kLanes.
inline Vec load_channels(const float* p, int) { return load(p); }

inline Vec load_channels(const BFloat16* p, int) {
  const Int bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

inline void store_channels(float* p, int, Vec x) { store(p, x); }

// Rounds to nearest, ties to even; a NaN stays NaN.
inline __m128i to_bfloat16(Vec x) {
  const Int bits = _mm256_castps_si256(x);
  const Int odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const Int rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const Vec is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const Vec quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  const Int half = _mm256_srli_epi32(
      _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, is_nan)), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

inline void store_channels(BFloat16* p, int, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bfloat16(x));
}

// Stores kLanes channels, bypassing the caches.
inline void stream_channels(float* p, Vec x) { _mm256_stream_ps(p, x); }

inline void stream_channels(BFloat16* p, Vec x) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), to_bfloat16(x));
}

// 128-bit lane l of the result: 4 channels of row 4 * l.
inline Vec load_quad(const float* p, int stride) {
  const Vec x = _mm256_castps128_ps256(_mm_loadu_ps(p));
  return _mm256_insertf128_ps(x, _mm_loadu_ps(p + 4 * stride), 1);
}

// Inverse of load_quad.
inline void store_quad(float* p, int stride, Vec x) {
  _mm_storeu_ps(p, _mm256_castps256_ps128(x));
  _mm_storeu_ps(p + 4 * stride, _mm256_extractf128_ps(x, 1));
}

// Transposes each 4 x 4 block of numbers, formed by the same 128-bit lane of the 4 vectors.
inline void transpose_quads(Vec x[4]) {
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
  const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
  const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
  const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
  x[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
  x[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
  x[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
  x[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}

}  // namespace
