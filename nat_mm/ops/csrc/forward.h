// Computes the output of a part of the map, and the statistics for the backward pass.

#pragma once

#include "window.h"

namespace {

// Computes the scores of R rows of queries and C neighbors of each in the rows [near, end), and
// updates the largest ones. `bias_of` and `to_of` belong to the row `near`; those of the following
// rows lie one step further on.
template <int R, int C, bool kPlain>
void score(const float* queries, int step, const Ring& keys, int near, int end, int channels,
           const Block& block, int from, const float* const (&bias_of)[kTileRows],
           float* const (&to_of)[kTileRows], int to_step, Vec* largest) {
  const Neighbors<C, kPlain> neighbors(block, from);
  const float* bias[R];
  float* to[R];
  Vec most[R];
  for (int i = 0; i < R; ++i) {
    bias[i] = bias_of[i] + from;
    to[i] = to_of[i] + from * kLanes;
    most[i] = largest[i];
  }
  for (; near < end; ++near) {
    Vec sum[R][C];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) sum[i][j] = broadcast(0.0f);
    }
    const float* shared = keys.row(near) + (block.neighbor - keys.base) + from;
    add_products(sum, queries, step, shared, keys.stride, channels, neighbors);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        const Vec score = with_bias(sum[i][j], neighbors.bias(bias[i], j));
        most[i] = maximum(most[i], score);
        store(to[i] + j * kLanes, score);
      }
      bias[i] += kBiasStride;
      to[i] += to_step;
    }
  }
  for (int i = 0; i < R; ++i) largest[i] = most[i];
}

inline void forward(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_query;
  const Part part(plan, pass, task);
  const int channels = plan.channels;
  Scratch scratch{memory};
  float* const stage = scratch.take(channels * kLanes);
  const int tile_step = channels * kLanes;
  const float* bias = pass.bias + part.head * (2 * pass.rows.kernel - 1) * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head output(plan, plan.output, part.sample, part.head, stage);

  const SameFactor scaled{plan.scale * kLog2E};
  const Ring keys = scratch.take_ring(pass, part, channels);
  const Ring values = scratch.take_ring(pass, part, channels);
  float* const queries = scratch.take(kTileRows * tile_step);
  float* const outputs = scratch.take(kTileRows * tile_step);
  const Windows scores(scratch, pass);

  const auto fill = [&](int row) {
    fill_row(keys, part, pass.rows, key, SameFactor{1.0f}, row);
    fill_row(values, part, pass.rows, value, SameFactor{1.0f}, row);
  };

  const auto tile = [&](const TileRows& rows, const Block& block) {
    for (int i = 0; i < rows.number; ++i) {
      query.load(rows.token(i), block.position, scaled, queries + i * tile_step, kLanes);
    }
    Vec largest[kTileRows];
    for (int i = 0; i < rows.number; ++i) largest[i] = broadcast(-__builtin_inff());
    rows.for_each_run([&](int near, int end, int low, int number) {
      float* to[kTileRows];
      const float* bias_of[kTileRows];
      scores.find(to, rows, near, low, number);
      rows.find_bias(bias_of, bias, near, low, number);
      for_each_chunk(block.count, [&](int from, int columns) {
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          constexpr int R = decltype(r)::value, C = decltype(c)::value;
          score<R, C, decltype(plain)::value != 0>(queries + low * tile_step, tile_step, keys, near,
                                                   end, channels, block, from, bias_of, to,
                                                   scores.row_step, largest + low);
        });
      });
    });

    Vec total[kTileRows];
    for (int i = 0; i < rows.number; ++i) {
      float* p = scores.of(i);
      Vec sum = broadcast(0.0f);
      const Vec most = largest[i];
      for (int neighbor = 0; neighbor < scores.size; ++neighbor, p += kLanes) {
        const Vec weight = exp2(load(p) - most);
        sum = sum + weight;
        store(p, weight);
      }
      total[i] = sum;
    }
    combine(outputs, tile_step, values, channels, scores, rows, block);

    for (int i = 0; i < rows.number; ++i) {
      output.store(outputs + i * tile_step, broadcast(1.0f) / total[i], rows.token(i),
                   block.position, block.tokens);
      part.store(largest[i], plan.largest, plan, rows.token(i), pass.columns, block);
      part.store(total[i], plan.total, plan, rows.token(i), pass.columns, block);
    }
  };
  sweep(pass, part, scratch, fill, tile);
}

}  // namespace
