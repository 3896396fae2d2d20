// Gradients of a part of the map. With P the attention weights, recomputed from the log-sum-exp,
//   dP[q, k] = grad_output[q] . value[k],    dS = P * (dP - delta[q]),    delta = output . grad_output
//   grad_query = scale * dS key,  grad_key = scale * dS^T query,  grad_value = P^T grad_output,
// and the gradient of the bias sums dS. All tensors are read and written once, without atomics:
// queries take from their keys in one pass, keys from the queries that attend to them in another.

#pragma once

#include "tile.h"

namespace {

// P and dS of R rows of a tile and C neighbours, from the scores minus log-sum-exp and dP - delta.
template <int R, int C, bool kPlain>
inline void attend(Vec (&score)[R][C], Vec (&grad)[R][C], const Neighbours<C, kPlain>& neighbours) {
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      const Vec weight = exp2(score[i][j]);
      score[i][j] = neighbours.keep(weight, j);
      grad[i][j] = neighbours.keep(weight * grad[i][j], j);
    }
  }
}

// Adds dS to the sums by relative position, which are kept apart for each lane.
template <int C, bool kPlain>
inline void add_bias_gradient(float* row, const Vec* grad, const Block& block,
                              const int32_t* offset) {
  if (kPlain) {
    row += block.bias * kLanes;
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) store(row + j * kLanes, load(row + j * kLanes) + grad[j]);
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      float lanes[kLanes];
      store(lanes, grad[j]);
      for (int lane = 0; lane < block.tokens; ++lane) {
        row[(offset[lane] + j) * kLanes + lane] += lanes[lane];
      }
    }
  }
}

// grad_query, the part's sums for grad_bias, and delta.
inline void query_gradient(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_query;
  const Part part(plan, pass, task);
  const int channels = plan.channels;
  Scratch scratch{memory};
  float* const stage = scratch.take(channels * kLanes);
  const int tile_step = channels * kLanes;
  const int bias_rows = 2 * pass.rows.kernel - 1, bias_columns = 2 * pass.columns.kernel - 1;
  const float* bias = pass.bias + part.head * bias_rows * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head output(plan, plan.output, part.sample, part.head, stage);
  const Head grad_output(plan, plan.grad_output, part.sample, part.head, stage);
  const Head grad_query(plan, plan.grad_query, part.sample, part.head, stage);

  const Ring keys = scratch.take_ring(pass, part, channels);
  const Ring values = scratch.take_ring(pass, part, channels);
  float* const queries = scratch.take(kTileRows * tile_step);
  float* const grad_outputs = scratch.take(kTileRows * tile_step);
  float* const grad_queries = scratch.take(kTileRows * tile_step);
  const int bias_sums = bias_rows * bias_columns;
  float* const grad_bias = scratch.take(bias_sums * kLanes);
  for (int i = 0; i < bias_sums; ++i) store(grad_bias + i * kLanes, broadcast(0.0f));


  const auto fill = [&](int row) {
    fill_row(keys, part, pass.rows, key, 1.0f, row);
    fill_row(values, part, pass.rows, value, 1.0f, row);
  };

  const auto tile = [&](const TileRows& rows, const Block& block) {
    Vec log_sum_exp[kTileRows], delta[kTileRows];
    for (int i = 0; i < rows.number; ++i) {
      const int row = rows.token(i);
      float* const outputs = grad_queries;  // not in use yet
      query.load(rows.token(i), block.position, plan.scale * kLog2E, queries + i * tile_step, kLanes);
      grad_output.load(rows.token(i), block.position, 1.0f, grad_outputs + i * tile_step, kLanes);
      output.load(rows.token(i), block.position, 1.0f, outputs, kLanes);
      delta[i] = broadcast(0.0f);
      for (int j = 0; j < tile_step; j += kLanes) {
        delta[i] = multiply_add(load(outputs + j), load(grad_outputs + i * tile_step + j), delta[i]);
      }
      float deltas[kLanes], sums[kLanes] = {};
      store(deltas, delta[i]);
      for (int lane = 0; lane < block.tokens; ++lane) {
        const int column = pass.columns.token[block.position + lane];
        const int64_t token = (part.sample * plan.height + row) * plan.width + column;
        sums[lane] = plan.log_sum_exp[token * plan.heads + part.head] * kLog2E;
        plan.delta[token * plan.heads + part.head] = deltas[lane];
      }
      log_sum_exp[i] = load(sums);
    }
    for (int i = 0; i < rows.number * tile_step; i += kLanes) {
      store(grad_queries + i, broadcast(0.0f));
    }

    rows.for_each_neighbour([&](int near, int first, int number) {
      for_each_chunk(block.count, [&](int from, int columns) {
        const int64_t shared = keys.row(near) - keys.data + (block.neighbour - keys.base) + from;
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          constexpr int R = decltype(r)::value, C = decltype(c)::value;
          constexpr bool kPlain = decltype(plain)::value != 0;
          const Neighbours<C, kPlain> neighbours(block, from);
          const auto bias_row = [&](int i) {
            const int row = rows.position + first + i;
            return pass.rows.offset[row] + near - pass.rows.first[row];
          };
          Vec score[R][C], grad[R][C];
#pragma GCC unroll 8
          for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
            for (int j = 0; j < C; ++j) {
              score[i][j] = neighbours.bias(bias + bias_row(i) * kBiasStride + from, j) -
                            log_sum_exp[first + i];
              grad[i][j] = broadcast(0.0f) - delta[first + i];
            }
          }
          const int start = first * tile_step;
          add_products(score, queries + start, tile_step, keys.data + shared, keys.stride, channels,
                       neighbours);
          add_products(grad, grad_outputs + start, tile_step, values.data + shared, values.stride,
                       channels, neighbours);
          attend(score, grad, neighbours);
          if (plan.grad_bias) {
            const int32_t* offset = pass.columns.offset + block.position;
#pragma GCC unroll 8
            for (int i = 0; i < R; ++i) {
              float* row = grad_bias + (bias_row(i) * bias_columns + from) * kLanes;
              add_bias_gradient<C, kPlain>(row, grad[i], block, offset);
            }
          }
          add_weighted(grad_queries + start, tile_step, grad, keys.data + shared, keys.stride,
                       channels, neighbours);
        });
      });
    });

    for (int i = 0; i < rows.number; ++i) {
      grad_query.store(grad_queries + i * tile_step, broadcast(plan.scale), rows.token(i), block.position, block.tokens);
    }
  };
  sweep(pass, part, scratch, fill, tile);

  if (plan.grad_bias) {
    for (int i = 0; i < bias_sums; ++i) {
      float sum = 0.0f;
      for (int lane = 0; lane < kLanes; ++lane) sum += grad_bias[i * kLanes + lane];
      plan.grad_bias[task * bias_sums + i] = sum;
    }
  }
}

// grad_key and grad_value; needs delta.
inline void key_gradient(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_key;
  const Part part(plan, pass, task);
  const int channels = plan.channels;
  Scratch scratch{memory};
  float* const stage = scratch.take(channels * kLanes);
  const int tile_step = channels * kLanes;
  const float* bias = pass.bias + part.head * (2 * pass.rows.kernel - 1) * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head grad_output(plan, plan.grad_output, part.sample, part.head, stage);
  const Head grad_key(plan, plan.grad_key, part.sample, part.head, stage);
  const Head grad_value(plan, plan.grad_value, part.sample, part.head, stage);

  // One more channel each: minus log-sum-exp, and minus delta.
  const Ring queries = scratch.take_ring(pass, part, channels + 1);
  const Ring grad_outputs = scratch.take_ring(pass, part, channels + 1);
  float* const keys = scratch.take(kTileRows * tile_step);
  float* const values = scratch.take(kTileRows * tile_step);
  float* const grad_keys = scratch.take(kTileRows * tile_step);
  float* const grad_values = scratch.take(kTileRows * tile_step);


  const auto fill = [&](int position) {
    fill_row(queries, part, pass.rows, query, plan.scale * kLog2E, position);
    fill_row(grad_outputs, part, pass.rows, grad_output, 1.0f, position);
    const int row = pass.rows.token[position];
    const int64_t start = (part.sample * plan.height + row) * plan.width;
    float* const log_sum_exp = queries.row(position) + channels * queries.stride - queries.base;
    float* const delta = grad_outputs.row(position) + channels * queries.stride - queries.base;
    for (int column = larger(part.ring_base, 0); column < part.ring_end; ++column) {
      const int64_t token = (start + pass.columns.token[column]) * plan.heads + part.head;
      log_sum_exp[column] = plan.log_sum_exp[token] * -kLog2E;
      delta[column] = -plan.delta[token];
    }
  };


  const auto tile = [&](const TileRows& rows, const Block& block) {
    for (int i = 0; i < rows.number; ++i) {
      key.load(rows.token(i), block.position, 1.0f, keys + i * tile_step, kLanes);
      value.load(rows.token(i), block.position, 1.0f, values + i * tile_step, kLanes);
    }
    for (int i = 0; i < rows.number * tile_step; i += kLanes) {
      store(grad_keys + i, broadcast(0.0f));
      store(grad_values + i, broadcast(0.0f));
    }

    rows.for_each_neighbour([&](int near, int first, int number) {
      for_each_chunk(block.count, [&](int from, int columns) {
        const int64_t shared =
            queries.row(near) - queries.data + (block.neighbour - queries.base) + from;
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          constexpr int R = decltype(r)::value, C = decltype(c)::value;
          const Neighbours<C, decltype(plain)::value != 0> neighbours(block, from);
          const int64_t sums = shared + channels * queries.stride;
          Vec score[R][C], grad[R][C];
#pragma GCC unroll 8
          for (int i = 0; i < R; ++i) {
            const int row = rows.position + first + i;
            const int bias_row = pass.rows.offset[row] + near - pass.rows.first[row];
#pragma GCC unroll 8
            for (int j = 0; j < C; ++j) {
              score[i][j] = neighbours.bias(bias + bias_row * kBiasStride + from, j) +
                            neighbours(queries.data + sums, j);
              grad[i][j] = neighbours(grad_outputs.data + sums, j);
            }
          }
          const int start = first * tile_step;
          add_products(score, keys + start, tile_step, queries.data + shared, queries.stride,
                       channels, neighbours);
          add_products(grad, values + start, tile_step, grad_outputs.data + shared,
                       grad_outputs.stride, channels, neighbours);
          attend(score, grad, neighbours);
          add_weighted(grad_values + start, tile_step, score, grad_outputs.data + shared,
                       grad_outputs.stride, channels, neighbours);
          add_weighted(grad_keys + start, tile_step, grad, queries.data + shared, queries.stride,
                       channels, neighbours);
        });
      });
    });

    for (int i = 0; i < rows.number; ++i) {
      // The ring's queries hold scale * log2(e).
      grad_key.store(grad_keys + i * tile_step, broadcast(kLn2), rows.token(i), block.position, block.tokens);
      grad_value.store(grad_values + i * tile_step, broadcast(1.0f), rows.token(i), block.position, block.tokens);
    }
  };
  sweep(pass, part, scratch, fill, tile);
}

}  // namespace
