// A number for each neighbor of a tile's tokens, and sums over neighbors weighted by them.

#pragma once

#include "sweep.h"

namespace {

// [kTileRows][kernel rows][kernel columns][kLanes].
struct Windows {
  float* data;
  int size;      // number of neighbors of a token
  int row_step;  // distance between rows of neighbors

  Windows(Scratch& scratch, const Pass& pass)
      : size(pass.rows.kernel * pass.columns.kernel), row_step(pass.columns.kernel * kLanes) {
    data = scratch.take(int64_t(kTileRows) * size * kLanes);
  }

  float* of(int i) const { return data + i * size * kLanes; }

  // Finds the numbers of a tile's rows [low, low + number) for the neighboring row `near`.
  void find(float* (&at)[kTileRows], const TileRows& rows, int near, int low, int number) const {
    for (int i = 0; i < number; ++i) at[i] = of(low + i) + (near - rows.first(low + i)) * row_step;
  }
};

template <int R, int C, bool kPlain>
void combine_run(float* tile, int step, const Ring& ring, int near, int end, int channels,
                 const Block& block, int from, float* const (&weights)[kTileRows], int row_step) {
  const Neighbors<C, kPlain> neighbors(block, from);
  for (int done = from * kLanes; near < end; ++near, done += row_step) {
    Vec weight[R][C];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) weight[i][j] = load(weights[i] + done + j * kLanes);
    }
    const float* shared = ring.row(near) + (block.neighbor - ring.base) + from;
    add_weighted(tile, step, weight, shared, ring.stride, channels, neighbors);
  }
}

// tile[row] = weighted sum over the neighbors in the ring.
inline void combine(float* tile, int step, const Ring& ring, int channels, const Windows& weights,
                    const TileRows& rows, const Block& block) {
  clear(tile, rows.number * step);
  rows.for_each_run([&](int near, int end, int low, int number) {
    float* at[kTileRows];
    weights.find(at, rows, near, low, number);
    for_each_chunk(block.count, [&](int from, int columns) {
      with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
        combine_run<decltype(r)::value, decltype(c)::value, decltype(plain)::value != 0>(
            tile + low * step, step, ring, near, end, channels, block, from, at, weights.row_step);
      });
    });
  });
}

}  // namespace
