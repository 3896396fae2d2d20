// Gradients of the queries and of the bias, for a part of the map. With the weights P,
//   dP[q, k] = grad_output[q] . value[k],   delta[q] = sum over k of P dP,
//   dS = P (dP - delta[q]),   grad_query = scale * dS key,
// and the gradient of the bias sums dS by relative position.
//
// P = E / total with E = exp2(score - largest). Here and in key_gradient.h, scores are recomputed
// with the same operations in the same order as in the forward pass. They are bitwise equal, so P
// sums to 1 however large the scores are. grad_output is divided by total once per query, instead
// of dividing once per neighbor.

#pragma once

#include "window.h"

namespace {

// Computes E and dP / total of R rows of queries and C neighbors of each in the rows [near, end),
// and adds their products to delta. `bias_of`, `weights` and `grads` belong to the row `near`.
template <int R, int C, bool kPlain>
void weigh(const float* queries, const float* grad_outputs, int step, const Ring& keys,
           const Ring& values, int near, int end, int channels, const Block& block, int from,
           const float* const (&bias_of)[kTileRows], const Vec* largest, Vec* delta,
           float* const (&weights)[kTileRows], float* const (&grads)[kTileRows], int row_step) {
  const Neighbors<C, kPlain> neighbors(block, from);
  int64_t bias_done = from, done = from * kLanes;
  for (; near < end; ++near, bias_done += kBiasStride, done += row_step) {
    const int64_t shared = keys.row(near) - keys.data + (block.neighbor - keys.base) + from;
    Vec score[R][C], grad[R][C];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        score[i][j] = broadcast(0.0f);
        grad[i][j] = broadcast(0.0f);
      }
    }
    add_products(score, queries, step, keys.data + shared, keys.stride, channels, neighbors);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        const Vec biased = with_bias(score[i][j], neighbors.bias(bias_of[i] + bias_done, j));
        store(weights[i] + done + j * kLanes, exp2(biased - largest[i]));
      }
    }
    add_products(grad, grad_outputs, step, values.data + shared, values.stride, channels,
                 neighbors);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      Vec sum = delta[i];
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        store(grads[i] + done + j * kLanes, grad[i][j]);
        sum = multiply_add(load(weights[i] + done + j * kLanes), grad[i][j], sum);
      }
      delta[i] = sum;
    }
  }
}

// Sums of dS by relative position, separately for each lane: [bias rows][bias columns][kLanes].
class BiasGradient {
 public:
  BiasGradient(Scratch& scratch, const Pass& pass)
      : columns_(2 * pass.columns.kernel - 1), size_((2 * pass.rows.kernel - 1) * columns_) {
    sums_ = scratch.take(int64_t(size_) * kLanes);
    clear(sums_, int64_t(size_) * kLanes);
  }

  // Adds the queries' dS for the neighbors in one row, [columns][kLanes].
  void add(int bias_row, const Pass& pass, const Block& block, const float* grad) {
    float* row = sums_ + bias_row * columns_ * kLanes;
    if (block.plain) {
      row += block.bias * kLanes;
      for (int i = 0; i < pass.columns.kernel * kLanes; i += kLanes) {
        store(row + i, load(row + i) + load(grad + i));
      }
      return;
    }
    const int32_t* offset = pass.columns.offset + block.position;
    for (int column = 0; column < pass.columns.kernel; ++column, grad += kLanes) {
      for (int lane = 0; lane < block.tokens; ++lane) {
        row[(offset[lane] + column) * kLanes + lane] += grad[lane];
      }
    }
  }

  void store_sums(float* to) const {
    for (int i = 0; i < size_; ++i) {
      to[i] = 0.0f;
      for (int lane = 0; lane < kLanes; ++lane) to[i] += sums_[i * kLanes + lane];
    }
  }

 private:
  int columns_, size_;
  float* sums_;
};

// Computes grad_query, the part's sums for grad_bias, and delta.
inline void query_gradient(const Plan& plan, int64_t task, float* memory) {
  const Pass& pass = plan.by_query;
  const Part part(plan, pass, task);
  const int channels = plan.channels, tile_step = channels * kLanes;
  Scratch scratch{memory};
  float* const stage = scratch.take(tile_step);
  const float* bias = pass.bias + part.head * (2 * pass.rows.kernel - 1) * kBiasStride;
  const Head query(plan, plan.query, part.sample, part.head, stage);
  const Head key(plan, plan.key, part.sample, part.head, stage);
  const Head value(plan, plan.value, part.sample, part.head, stage);
  const Head grad_output(plan, plan.grad_output, part.sample, part.head, stage);
  const Head grad_query(plan, plan.grad_query, part.sample, part.head, stage);

  const SameFactor scaled{plan.scale * kLog2E};
  const Ring keys = scratch.take_ring(pass, part, channels);
  const Ring values = scratch.take_ring(pass, part, channels);
  float* const queries = scratch.take(kTileRows * tile_step);
  float* const grad_outputs = scratch.take(kTileRows * tile_step);
  float* const grad_queries = scratch.take(kTileRows * tile_step);
  const Windows weights(scratch, pass), grads(scratch, pass);
  BiasGradient grad_bias(scratch, pass);

  const auto fill = [&](int row) {
    fill_row(keys, part, pass.rows, key, SameFactor{1.0f}, row);
    fill_row(values, part, pass.rows, value, SameFactor{1.0f}, row);
  };

  const auto tile = [&](const TileRows& rows, const Block& block) {
    Vec largest[kTileRows], inverse[kTileRows], delta[kTileRows];
    for (int i = 0; i < rows.number; ++i) {
      const int row = rows.token(i);
      query.load(row, block.position, scaled, queries + i * tile_step, kLanes);
      grad_output.load(row, block.position, InverseTotal(plan, part, row, pass.columns),
                       grad_outputs + i * tile_step, kLanes);
      largest[i] = part.load(plan.largest, plan, row, pass.columns, block);
      inverse[i] = broadcast(1.0f) / part.load(plan.total, plan, row, pass.columns, block);
      delta[i] = broadcast(0.0f);
    }

    rows.for_each_run([&](int near, int end, int low, int number) {
      float *weights_at[kTileRows], *grads_at[kTileRows];
      const float* bias_of[kTileRows];
      weights.find(weights_at, rows, near, low, number);
      grads.find(grads_at, rows, near, low, number);
      rows.find_bias(bias_of, bias, near, low, number);
      for_each_chunk(block.count, [&](int from, int columns) {
        with_constants(number, columns, block.plain, [&](auto r, auto c, auto plain) {
          weigh<decltype(r)::value, decltype(c)::value, decltype(plain)::value != 0>(
              queries + low * tile_step, grad_outputs + low * tile_step, tile_step, keys, values,
              near, end, channels, block, from, bias_of, largest + low, delta + low, weights_at,
              grads_at, weights.row_step);
        });
      });
    });

    for (int i = 0; i < rows.number; ++i) {
      delta[i] = delta[i] * inverse[i];
      float* const weight = weights.of(i);
      const float* const grad = grads.of(i);
      for (int j = 0; j < weights.size * kLanes; j += kLanes) {
        store(weight + j, load(weight + j) * (load(grad + j) - delta[i]));
      }
      if (plan.grad_bias) {
        for (int near = rows.first(i); near < rows.last(i); ++near) {
          const float* row = weight + (near - rows.first(i)) * weights.row_step;
          grad_bias.add(rows.bias_row(i, near), pass, block, row);
        }
      }
      part.store(delta[i], plan.delta, plan, rows.token(i), pass.columns, block);
    }

    combine(grad_queries, tile_step, keys, channels, weights, rows, block);
    for (int i = 0; i < rows.number; ++i) {
      grad_query.store(grad_queries + i * tile_step, broadcast(plan.scale), rows.token(i),
                       block.position, block.tokens);
    }
  };
  sweep(pass, part, scratch, fill, tile);

  if (plan.grad_bias) {
    const int64_t size = (2 * pass.rows.kernel - 1) * (2 * pass.columns.kernel - 1);
    grad_bias.store_sums(plan.grad_bias + task * size);
  }
}

}  // namespace
