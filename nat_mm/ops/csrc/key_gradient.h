// Gradients of the keys and values, for a part of the map. In the notation of query_gradient.h,
//   grad_key = scale * dS^T query,   grad_value = P^T grad_output = E^T (grad_output / total),
// where each key gathers from the queries that attend to it. Each gradient is therefore written
// once, without atomics.

#pragma once

#include "sweep.h"

namespace {

// Keys, values and their gradients in a tile, each [kTileRows][channels][kLanes].
struct KeyTile {
  float *keys, *values, *grad_keys, *grad_values;
  int step;
};

// Adds what R rows of keys receive from C queries each in the rows [near, end). The rings contain
// an extra channel: the negated largest score and the negated delta. `bias_of` belongs to the row
// `near`.
template <int R, int C, bool kPlain>
void collect(const KeyTile& tile, int low, const Ring& queries, const Ring& grad_outputs, int near,
             int end, int channels, const Block& block, int from,
             const float* const (&bias_of)[kTileRows]) {
  const Neighbors<C, kPlain> neighbors(block, from);
  const int start = low * tile.step;
  for (int64_t bias_done = from; near < end; ++near, bias_done += kBiasStride) {
    const int64_t shared =
        queries.row(near) - queries.data + (block.neighbor - queries.base) + from;
    const int64_t sums = shared + int64_t(channels) * queries.stride;
    Vec weight[R][C], grad[R][C];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        weight[i][j] = broadcast(0.0f);
        grad[i][j] = broadcast(0.0f);
      }
    }
    add_products(weight, tile.keys + start, tile.step, queries.data + shared, queries.stride,
                 channels, neighbors);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        const Vec biased = with_bias(weight[i][j], neighbors.bias(bias_of[i] + bias_done, j));
        const Vec exponent = biased + neighbors(queries.data + sums, j);
        weight[i][j] = neighbors.keep(exp2(exponent), j);
      }
    }
    add_products(grad, tile.values + start, tile.step, grad_outputs.data + shared,
                 grad_outputs.stride, channels, neighbors);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        const Vec centered = grad[i][j] + neighbors(grad_outputs.data + sums, j);
        grad[i][j] = neighbors.keep(weight[i][j] * centered, j);
      }
    }
    add_weighted(tile.grad_values + start, tile.step, weight, grad_outputs.data + shared,
                 grad_outputs.stride, channels, neighbors);
    add_weighted(tile.grad_keys + start, tile.step, grad, queries.data + shared, queries.stride,
                 channels, neighbors);
  }
}

// Computes grad_key and grad_value; needs delta.
inline void key_gradient(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_key;
  const Part part(plan, pass, task);
  const int channels = plan.channels, tile_step = channels * kLanes;
  Scratch scratch{memory};
  float* const stage = scratch.take(tile_step);
  const float* bias = pass.bias + part.head * (2 * pass.rows.kernel - 1) * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head grad_output(plan, plan.grad_output, part.sample, part.head, stage);
  const Head grad_key(plan, plan.grad_key, part.sample, part.head, stage);
  const Head grad_value(plan, plan.grad_value, part.sample, part.head, stage);

  const Ring queries = scratch.take_ring(pass, part, channels + 1);
  const Ring grad_outputs = scratch.take_ring(pass, part, channels + 1);
  const int64_t floats = kTileRows * tile_step;
  const KeyTile keys{scratch.take(floats), scratch.take(floats), scratch.take(floats),
                     scratch.take(floats), tile_step};

  const auto fill = [&](int position) {
    const int row = pass.rows.token[position];
    fill_row(queries, part, pass.rows, query, SameFactor{plan.scale * kLog2E}, position);
    fill_row(grad_outputs, part, pass.rows, grad_output,
             InverseTotal(plan, part, row, pass.columns), position);
    const int64_t start = (part.sample * plan.height + row) * plan.width;
    float* const largest = queries.row(position) + channels * queries.stride - queries.base;
    float* const delta = grad_outputs.row(position) + channels * queries.stride - queries.base;
    for (int column = larger(part.ring_base, 0); column < part.ring_end; ++column) {
      const int64_t token = (start + pass.columns.token[column]) * plan.heads + part.head;
      largest[column] = -plan.largest[token];
      delta[column] = -plan.delta[token];
    }
  };

  const auto tile = [&](const TileRows& rows, const Block& block) {
    for (int i = 0; i < rows.number; ++i) {
      key.load(rows.token(i), block.position, SameFactor{1.0f}, keys.keys + i * tile_step, kLanes);
      value.load(rows.token(i), block.position, SameFactor{1.0f}, keys.values + i * tile_step, kLanes);
    }
    clear(keys.grad_keys, rows.number * tile_step);
    clear(keys.grad_values, rows.number * tile_step);

    rows.for_each_run([&](int near, int end, int low, int number) {
      const float* bias_of[kTileRows];
      rows.find_bias(bias_of, bias, near, low, number);
      for_each_chunk(block.count, [&](int from, int columns) {
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          collect<decltype(r)::value, decltype(c)::value, decltype(plain)::value != 0>(
              keys, low, queries, grad_outputs, near, end, channels, block, from, bias_of);
        });
      });
    });

    for (int i = 0; i < rows.number; ++i) {
      const int row = rows.token(i);
      // The ring's queries are already multiplied by scale * log2(e).
      grad_key.store(keys.grad_keys + i * tile_step, broadcast(kLn2), row, block.position,
                     block.tokens);
      grad_value.store(keys.grad_values + i * tile_step, broadcast(1.0f), row, block.position,
                       block.tokens);
    }
  };
  sweep(pass, part, scratch, fill, tile);
}

}  // namespace
