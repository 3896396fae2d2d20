// Products of a tile's tokens with their neighbors, and sums of neighbors: the hot loops.

#pragma once

#include "memory.h"

namespace {

// Loads the values of C neighbors of each lane from [columns], starting at the block's first
// neighbor.
template <int C, bool kPlain>
struct Neighbors {
  const Block& block;
  Mask exists[C];

  Neighbors(const Block& block, int from) : block(block) {
    for (int c = 0; c < C; ++c) exists[c] = greater(block.counts, from + c);
  }
  Vec operator()(const float* p, int c) const {
    return kPlain ? in_register(load(p + c)) : pick(p + c, block.near, exists[c]);
  }
  Vec bias(const float* row, int c) const {
    row += block.bias + c;
    return kPlain ? broadcast(*row) : pick(row, block.bias_entry, exists[c]);
  }
  Vec keep(Vec x, int c) const { return kPlain ? x : ::keep(exists[c], x); }
};

// Rings do not fit in the level-1 cache, and its hardware prefetcher does not anticipate the next
// accesses: the same columns of later channels, or of the next row.
inline void prefetch_ahead(const float* near, int stride) {
  constexpr int kChannelsAhead = 8;
  __builtin_prefetch(near + kChannelsAhead * stride);
  __builtin_prefetch(near + kChannelsAhead * stride + kLanes);
}

// sum[i][c] += tile[i] . neighbor c, over the channels.
template <int R, int C, bool kPlain>
NA2D_INLINE void add_products(Vec (&sum)[R][C], const float* tile, int tile_step, const float* near,
                              int stride, int channels, const Neighbors<C, kPlain>& neighbors) {
  for (int channel = 0; channel < channels; ++channel, tile += kLanes, near += stride) {
    prefetch_ahead(near, stride);
    Vec shared[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) shared[c] = neighbors(near, c);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec own = load(tile + i * tile_step);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[i][c] = multiply_add(own, shared[c], sum[i][c]);
    }
  }
}

// Adds a bias to a score that is already multiplied by log2(e). Since it is added last, a large
// bias does not cost the sum over the channels its precision.
inline Vec with_bias(Vec score, Vec bias) { return multiply_add(bias, broadcast(kLog2E), score); }

// tile[i] += weight[i][c] * neighbor c, for each channel.
template <int R, int C, bool kPlain>
NA2D_INLINE void add_weighted(float* tile, int tile_step, const Vec (&weight)[R][C],
                              const float* near, int stride, int channels,
                              const Neighbors<C, kPlain>& neighbors) {
  for (int channel = 0; channel < channels; ++channel, tile += kLanes, near += stride) {
    prefetch_ahead(near, stride);
    Vec sum[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) sum[i] = load(tile + i * tile_step);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Vec shared = neighbors(near, c);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) sum[i] = multiply_add(weight[i][c], shared, sum[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) store(tile + i * tile_step, sum[i]);
  }
}

template <int N>
struct Constant {
  static constexpr int value = N;
};

template <int R, bool kPlain, class F>
inline void with_chunk(int columns, F&& f) {
  switch (columns) {
    case 1: return f(Constant<R>(), Constant<1>(), Constant<kPlain>());
    case 2: return f(Constant<R>(), Constant<2>(), Constant<kPlain>());
    case 3: return f(Constant<R>(), Constant<3>(), Constant<kPlain>());
    case 4: return f(Constant<R>(), Constant<4>(), Constant<kPlain>());
  }
  if constexpr (kChunk > 4) {
    switch (columns) {
      case 5: return f(Constant<R>(), Constant<5>(), Constant<kPlain>());
      case 6: return f(Constant<R>(), Constant<6>(), Constant<kPlain>());
      case 7: return f(Constant<R>(), Constant<7>(), Constant<kPlain>());
    }
  }
}

template <int R, class F>
inline void with_columns(int columns, bool plain, F&& f) {
  plain ? with_chunk<R, true>(columns, f) : with_chunk<R, false>(columns, f);
}

// Calls f(rows, columns, plain) with its arguments as compile-time constants.
template <class F>
inline void with_constants(int rows, int columns, bool plain, F&& f) {
  if (rows == 1) return with_columns<1>(columns, plain, f);
  if (rows == 2) return with_columns<2>(columns, plain, f);
  if constexpr (kTileRows > 2) return with_columns<3>(columns, plain, f);
}

}  // namespace
