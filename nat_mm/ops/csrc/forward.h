// Output and log-sum-exp of a part of the map.

#pragma once

#include "tile.h"

namespace {

// log2(x) to 1e-7, of normal x >= 1.
inline Vec log2(Vec x) {
  // The bits of a float, read as an integer, are its logarithm to 0.043. Two steps of Newton's method.
  Vec y = multiply_add(to_float(bits_of(x)), broadcast(1.0f / (1 << 23)), broadcast(-126.957f));
  for (int step = 0; step < 2; ++step) {
    const Vec excess = multiply_add(x, exp2(broadcast(0.0f) - y), broadcast(-1.0f));
    y = multiply_add(excess, broadcast(kLog2E), y);
  }
  return y;
}

// Scores of R rows of queries with C neighbours of each, and the largest ones so far.
template <int R, int C, bool kPlain>
void score(const float* queries, int step, const float* keys, int stride, int channels,
           const Block& block, int from, const float* const* bias, float* const* to,
           Vec* largest) {
  const Neighbours<C, kPlain> neighbours(block, from);
  Vec sum[R][C];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) sum[i][j] = neighbours.bias(bias[i] + from, j);
  }
  add_products(sum, queries, step, keys + from, stride, channels, neighbours);
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) store(to[i] + (from + j) * kLanes, sum[i][j]);
    Vec most = largest[i];
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) most = maximum(most, sum[i][j]);
    largest[i] = most;
  }
}

// Adds to R rows of outputs C neighbours' values, weighted.
template <int R, int C, bool kPlain>
void combine(float* outputs, int step, const float* values, int stride, int channels,
             const Block& block, int from, const float* const* weights) {
  const Neighbours<C, kPlain> neighbours(block, from);
  Vec weight[R][C];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) weight[i][j] = load(weights[i] + (from + j) * kLanes);
  }
  add_weighted(outputs, step, weight, values + from, stride, channels, neighbours);
}

inline void forward(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_query;
  const Part part(plan, pass, task);
  const int channels = plan.channels;
  Scratch scratch{memory};
  float* const stage = scratch.take(channels * kLanes);
  const int window = pass.rows.kernel * pass.columns.kernel;
  const int kernel_columns = pass.columns.kernel;
  const int tile_step = channels * kLanes;
  const float* bias = pass.bias + part.head * (2 * pass.rows.kernel - 1) * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head output(plan, plan.output, part.sample, part.head, stage);

  const Ring keys = scratch.take_ring(pass, part, channels);
  const Ring values = scratch.take_ring(pass, part, channels);
  float* const queries = scratch.take(kTileRows * tile_step);
  float* const outputs = scratch.take(kTileRows * tile_step);
  float* const scores = scratch.take(int64_t(kTileRows) * window * kLanes);


  const auto fill = [&](int row) {
    fill_row(keys, part, pass.rows, key, 1.0f, row);
    fill_row(values, part, pass.rows, value, 1.0f, row);
  };

  const auto tile = [&](const TileRows& rows, const Block& block) {
    for (int i = 0; i < rows.number; ++i) {
      query.load(rows.token(i), block.position, plan.scale * kLog2E, queries + i * tile_step, kLanes);
    }
    // Row i's scores of its neighbours in a row, and that row's entries of the bias table.
    const auto scores_at = [&](int i, int near) {
      const int row = near - pass.rows.first[rows.position + i];
      return scores + (i * window + row * kernel_columns) * kLanes;
    };
    const auto bias_at = [&](int i, int near) {
      const int row = rows.position + i;
      return bias + (pass.rows.offset[row] + near - pass.rows.first[row]) * kBiasStride;
    };

    Vec largest[kTileRows];
    for (int i = 0; i < rows.number; ++i) largest[i] = broadcast(-__builtin_inff());
    rows.for_each_neighbour([&](int near, int first, int number) {
      const float* shared = keys.row(near) + (block.neighbour - keys.base);
      float* to[kTileRows];
      const float* bias_rows[kTileRows];
      for (int i = 0; i < number; ++i) {
        to[i] = scores_at(first + i, near);
        bias_rows[i] = bias_at(first + i, near);
      }
      const float* tile = queries + first * tile_step;
      for_each_chunk(block.count, [&](int from, int columns) {
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          constexpr int R = decltype(r)::value, C = decltype(c)::value;
          score<R, C, decltype(plain)::value != 0>(tile, tile_step, shared, keys.stride, channels,
                                                   block, from, bias_rows, to, largest + first);
        });
      });
    });

    Vec total[kTileRows];
    for (int i = 0; i < rows.number; ++i) {
      float* p = scores + i * window * kLanes;
      Vec sum = broadcast(0.0f);
      const Vec most = largest[i];
      for (int neighbour = 0; neighbour < window; ++neighbour, p += kLanes) {
        const Vec weight = exp2(load(p) - most);
        sum = sum + weight;
        store(p, weight);
      }
      total[i] = sum;
    }

    for (int64_t i = 0; i < rows.number * tile_step; i += kLanes) {
      store(outputs + i, broadcast(0.0f));
    }
    rows.for_each_neighbour([&](int near, int first, int number) {
      const float* shared = values.row(near) + (block.neighbour - values.base);
      const float* weights[kTileRows];
      for (int i = 0; i < number; ++i) weights[i] = scores_at(first + i, near);
      float* tile = outputs + first * tile_step;
      for_each_chunk(block.count, [&](int from, int columns) {
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          constexpr int R = decltype(r)::value, C = decltype(c)::value;
          combine<R, C, decltype(plain)::value != 0>(tile, tile_step, shared, values.stride,
                                                     channels, block, from, weights);
        });
      });
    });

    for (int i = 0; i < rows.number; ++i) {
      output.store(outputs + i * tile_step, broadcast(1.0f) / total[i], rows.token(i), block.position, block.tokens);
      float sums[kLanes];
      store(sums, (largest[i] + log2(total[i])) * broadcast(kLn2));
      float* const to = plan.log_sum_exp +
                        (part.sample * plan.height + rows.token(i)) * plan.width * plan.heads + part.head;
      const int32_t* column = pass.columns.token + block.position;
      for (int lane = 0; lane < block.tokens; ++lane) to[column[lane] * plan.heads] = sums[lane];
    }
  };
  sweep(pass, part, scratch, fill, tile);
}

}  // namespace
