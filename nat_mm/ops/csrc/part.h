// A task's part of the map, in tiles of kTileRows rows and kLanes columns, and its memory. Included
// after a simd_*.h.

#pragma once

#include "plan.h"

// Forces inlining, so that arrays of vectors stay in registers across functions.
#define NA2D_INLINE inline __attribute__((always_inline))

namespace {

using na2d::Axis;
using na2d::kBiasStride;
using na2d::Pass;
using na2d::Plan;
using na2d::View;

constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

inline int smaller(int a, int b) { return a < b ? a : b; }
inline int larger(int a, int b) { return a > b ? a : b; }

// Positions [position, position + tokens) along the columns, one per lane; the contents of unused
// lanes are ignored. The lanes' first neighbors lie within kLanes of each other.
struct Block {
  int position, tokens;
  int neighbor;  // position of the first lane's first neighbor
  int count;      // most neighbors of a lane
  bool plain;     // all lanes in use, each lane's neighbors one column after the previous lane's
  int bias;       // smallest entry in a row of the bias table that belongs to a first neighbor
  Int near, bias_entry;  // each lane's first neighbor and its bias, minus `neighbor` and `bias`
  Int counts;            // number of each lane's neighbors

  // Returns the block that begins at a position.
  static Block at(const Axis& axis, int position, int end) {
    int32_t near[kLanes] = {}, bias_entry[kLanes] = {}, counts[kLanes] = {};
    Block block{};
    block.position = position;
    block.neighbor = axis.first[position];
    block.bias = axis.offset[position];
    block.plain = true;
    for (int lane = 0; lane < kLanes && position + lane < end; ++lane) {
      const int here = position + lane;
      near[lane] = axis.first[here] - block.neighbor;
      if (near[lane] >= kLanes) break;
      bias_entry[lane] = axis.offset[here];
      counts[lane] = axis.count[here];
      block.count = larger(block.count, axis.count[here]);
      block.bias = smaller(block.bias, axis.offset[here]);
      block.plain = block.plain && near[lane] == lane && axis.count[here] == axis.kernel;
      block.tokens = lane + 1;
    }
    for (int lane = 0; lane < block.tokens; ++lane) bias_entry[lane] -= block.bias;
    block.plain = block.plain && block.tokens == kLanes;
    block.near = load(near);
    block.bias_entry = load(bias_entry);
    block.counts = load(counts);
    return block;
  }
};

static_assert(sizeof(Block) <= na2d::kBlockBytes);

// Rows of a tile, [position, position + number); neighbors [first(i), last(i)) belong to row i.
struct TileRows {
  const Axis& axis;
  int position, number;

  int begin() const { return first(0); }
  int end() const { return last(number - 1); }
  int token(int i) const { return axis.token[position + i]; }
  int first(int i) const { return axis.first[position + i]; }
  int last(int i) const { return axis.first[position + i] + axis.count[position + i]; }

  // Returns the row of the bias table for row i and a neighbor.
  int bias_row(int i, int near) const { return axis.offset[position + i] + near - first(i); }

  // Finds the biases of rows [low, low + number) for the neighboring row `near`.
  void find_bias(const float* (&at)[kTileRows], const float* bias, int near, int low,
                 int number) const {
    for (int i = 0; i < number; ++i) at[i] = bias + bias_row(low + i, near) * kBiasStride;
  }

  // Calls f(near, end, low, number) for each run [near, end) of neighboring rows that are needed by
  // the same rows [low, low + number) of the tile.
  template <class F>
  void for_each_run(F&& f) const {
    for (int near = begin(), low = 0, high = 0; near < end();) {
      while (last(low) <= near) ++low;
      while (high < number && first(high) <= near) ++high;
      const int next = high < number ? smaller(last(low), first(high)) : last(low);
      if (high > low) f(near, next, low, high - low);
      near = next;
    }
  }
};

// Splits `count` neighbors of a row into nearly equal chunks: f(first, number).
template <class F>
inline void for_each_chunk(int count, F&& f) {
  const int chunks = (count + kChunk - 1) / kChunk;
  for (int i = 0; i < chunks; ++i) {
    const int from = count * i / chunks;
    f(from, count * (i + 1) / chunks - from);
  }
}

// A task's part of the map.
struct Part {
  int64_t sample, head;
  int row_begin, row_end;
  int column_begin, column_end;
  int ring_base, ring_end;  // positions of the columns in the rings

  Part(const Plan& plan, const Pass& pass, int64_t task) {
    // Heads vary fastest: consecutive tasks then read adjacent memory.
    head = task % plan.heads;
    task /= plan.heads;
    const int strip = task % pass.strips;
    task /= pass.strips;
    const int chunk = task % pass.chunks;
    sample = task / pass.chunks;
    row_begin = chunk * pass.chunk_rows;
    row_end = smaller(row_begin + pass.chunk_rows, pass.rows.length);
    column_begin = strip * pass.strip_columns;
    column_end = smaller(column_begin + pass.strip_columns, pass.columns.length);
    // Loads of interior blocks are aligned if the ring begins half a window to the left.
    ring_base = smaller(column_begin - pass.columns.kernel / 2, pass.columns.first[column_begin]);
    ring_end = pass.columns.first[column_end - 1] + pass.columns.count[column_end - 1];
  }

  // Loads a block from [batch, height, width, heads]; lanes beyond its tokens are 0.
  Vec load(const float* data, const Plan& plan, int row, const Axis& columns,
           const Block& block) const {
    float lanes[kLanes] = {};
    data += (sample * plan.height + row) * plan.width * plan.heads + head;
    for (int lane = 0; lane < block.tokens; ++lane) {
      lanes[lane] = data[columns.token[block.position + lane] * plan.heads];
    }
    return ::load(lanes);
  }

  // The inverse.
  void store(Vec x, float* data, const Plan& plan, int row, const Axis& columns,
             const Block& block) const {
    float lanes[kLanes];
    ::store(lanes, x);
    data += (sample * plan.height + row) * plan.width * plan.heads + head;
    for (int lane = 0; lane < block.tokens; ++lane) {
      data[columns.token[block.position + lane] * plan.heads] = lanes[lane];
    }
  }
};

// Ring buffer of consecutive neighboring rows of a head, each [channels][columns].
struct Ring {
  float* data;
  int rows, stride;
  int64_t row_size;
  int base;  // position of the first column

  float* row(int position) const { return data + position % rows * row_size; }
};

// Hands out pieces of a task's scratch memory.
struct Scratch {
  float* free;

  float* take(int64_t floats) {
    float* p = free;
    free += (floats + 15) / 16 * 16;
    return p;
  }
  Ring take_ring(const Pass& pass, const Part& part, int channels) {
    const int64_t row_size = int64_t(channels) * pass.ring_stride;
    return {take(row_size * pass.ring_rows), pass.ring_rows, pass.ring_stride, row_size,
            part.ring_base};
  }
};

}  // namespace
