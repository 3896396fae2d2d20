// 16 lanes of AVX-512.

#pragma once

#include <immintrin.h>

#include "plan.h"

namespace {

using na2d::BFloat16;

constexpr int kLanes = 16;
// 3 x 7 sums, 7 operands shared by the rows and 1 of a row: 29 of the 32 registers.
constexpr int kTileRows = 3;
constexpr int kChunk = 7;

using Vec = __m512;
using Int = __m512i;

inline Vec broadcast(float x) { return _mm512_set1_ps(x); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
// Forces x into a register; otherwise GCC reloads it for each use.
inline Vec in_register(Vec x) {
  asm("" : "+v"(x));
  return x;
}

inline Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec maximum(Vec a, Vec b) { return _mm512_max_ps(a, b); }

using Mask = __mmask16;

inline Mask greater(Int a, int32_t b) { return _mm512_cmpgt_epi32_mask(a, _mm512_set1_epi32(b)); }

// x where the mask is set, otherwise 0.
inline Vec keep(Mask mask, Vec x) { return _mm512_maskz_mov_ps(mask, x); }

// Reads p[index[lane]] where the mask is set, otherwise 0; 0 <= index < kLanes.
inline Vec pick(const float* p, Int index, Mask mask) {
  return _mm512_maskz_permutexvar_ps(mask, index, load(p));
}

// 2^x to within 2e-7, for x < 128; exactly 1 for 0, and 0 where the result would be subnormal.
inline Vec exp2(Vec x) {
  const Vec fraction = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
  Vec y = broadcast(1.86713034e-3f);
  y = multiply_add(y, fraction, broadcast(9.01702974e-3f));
  y = multiply_add(y, fraction, broadcast(5.57999135e-2f));
  y = multiply_add(y, fraction, broadcast(2.40164450e-1f));
  y = multiply_add(y, fraction, broadcast(6.93151312e-1f));
  y = multiply_add(y, fraction, broadcast(1.0f));
  const __mmask16 normal = _mm512_cmp_ps_mask(x, broadcast(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, y, x);
}

inline __mmask16 first_lanes(int number) {
  return number < kLanes ? __mmask16((1 << number) - 1) : __mmask16(-1);
}

// Loads up to kLanes of the `left` channels at p; the remaining lanes are 0.
inline Vec load_channels(const float* p, int left) {
  return left >= kLanes ? load(p) : _mm512_maskz_loadu_ps(first_lanes(left), p);
}

inline Vec load_channels(const BFloat16* p, int left) {
  const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(left), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline void store_channels(float* p, int left, Vec x) {
  // Reading back what a masked store wrote is slow.
  left >= kLanes ? store(p, x) : _mm512_mask_storeu_ps(p, first_lanes(left), x);
}

// Rounds to nearest, ties to even; a NaN stays NaN.
inline __m256i to_bfloat16(Vec x) {
  const Int bits = _mm512_castps_si512(x);
  const Int odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  Int half = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  half = _mm512_mask_mov_epi32(half, is_nan, _mm512_set1_epi32(0x7fc00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(half, 16));
}

inline void store_channels(BFloat16* p, int left, Vec x) {
  _mm256_mask_storeu_epi16(p, first_lanes(left), to_bfloat16(x));
}

// Stores kLanes channels, bypassing the caches.
inline void stream_channels(float* p, Vec x) { _mm512_stream_ps(p, x); }

inline void stream_channels(BFloat16* p, Vec x) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to_bfloat16(x));
}

// 128-bit lane l of the result: 4 channels of row 4 * l.
inline Vec load_quad(const float* p, int stride) {
  Vec x = _mm512_castps128_ps512(_mm_loadu_ps(p));
  x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 4 * stride), 1);
  x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 8 * stride), 2);
  return _mm512_insertf32x4(x, _mm_loadu_ps(p + 12 * stride), 3);
}

// Inverse of load_quad.
inline void store_quad(float* p, int stride, Vec x) {
  _mm_storeu_ps(p, _mm512_castps512_ps128(x));
  _mm_storeu_ps(p + 4 * stride, _mm512_extractf32x4_ps(x, 1));
  _mm_storeu_ps(p + 8 * stride, _mm512_extractf32x4_ps(x, 2));
  _mm_storeu_ps(p + 12 * stride, _mm512_extractf32x4_ps(x, 3));
}

// Transposes each 4 x 4 block of numbers, formed by the same 128-bit lane of the 4 vectors.
inline void transpose_quads(Vec x[4]) {
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0], x[1]));
  const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0], x[1]));
  const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[2], x[3]));
  const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2], x[3]));
  x[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
  x[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
  x[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
  x[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

}  // namespace
