// What the passes over tiles share: blocks of columns, transposed copies, products with neighbours.
// Included after a simd_*.h.

#pragma once

#include <cstring>
#include <new>

#include "plan.h"

// Inlined, so that arrays of vectors stay in registers from one function to the next.
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

// Columns [position, position + tokens) of the map, one in each lane; what the lanes left over hold
// counts for nothing. The lanes' first neighbours lie within kLanes of each other.
struct Block {
  int position, tokens;
  int neighbour;  // position of the first lane's first neighbour
  int count;      // of a lane's neighbours, at most
  bool plain;     // all lanes in use, the neighbours of each one column on from the last lane's
  int bias;       // least entry of a row of the bias table that belongs to a first neighbour
  Int near, bias_entry;  // each lane's first neighbour and its bias, from `neighbour` and `bias` on
  Int counts;            // of each lane's neighbours

  // The block that begins at a position.
  static Block at(const Axis& axis, int position, int end) {
    int32_t near[kLanes] = {}, bias_entry[kLanes] = {}, counts[kLanes] = {};
    Block block{};
    block.position = position;
    block.neighbour = axis.first[position];
    block.bias = axis.offset[position];
    block.plain = true;
    for (int lane = 0; lane < kLanes && position + lane < end; ++lane) {
      const int here = position + lane;
      near[lane] = axis.first[here] - block.neighbour;
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

// Neighbouring rows of a head, one on the heels of the other, each [channels][columns].
struct Ring {
  float* data;
  int rows, stride;
  int64_t row_size;
  int base;  // position of the first column

  float* row(int position) const { return data + position % rows * row_size; }
};

inline void clear(float* p, int64_t floats) {
  for (int64_t i = 0; i < floats; i += kLanes) store(p + i, broadcast(0.0f));
}

// [kLanes][channels] -> [channels][stride].
inline void to_lanes(const float* tokens, int channels, float* to, int stride) {
  for (int channel = 0; channel < channels; channel += 4, to += 4 * stride) {
    Vec x[4];
    for (int j = 0; j < 4; ++j) x[j] = load_quad(tokens + j * channels + channel, channels);
    transpose_quads(x);
    for (int j = 0; j < 4; ++j) store(to + j * stride, x[j]);
  }
}

// [channels][kLanes], lane by lane times `factor`, -> [kLanes][channels].
inline void from_lanes(const float* from, Vec factor, int channels, float* tokens) {
  for (int channel = 0; channel < channels; channel += 4, from += 4 * kLanes) {
    Vec x[4];
    for (int j = 0; j < 4; ++j) x[j] = load(from + j * kLanes) * factor;
    transpose_quads(x);
    for (int j = 0; j < 4; ++j) store_quad(tokens + j * channels + channel, channels, x[j]);
  }
}

// A head of a sample in a tensor, read and written kLanes tokens of a row at a time.
//
// They pass through `stage`, [kLanes][channels], so that memory is touched token by token as it lies
// there, each cache line once, while the tokens that come next are asked for.
class Head {
 public:
  Head(const Plan& plan, const View& view, int64_t sample, int64_t head, float* stage)
      : view_(view),
        stage_(stage),
        start_(sample * view.batch + head * view.head),
        channels_(plan.channels),
        is_bfloat16_(plan.is_bfloat16) {}

  // Brings tokens, times `factor`, as [channels][stride].
  void load(int row, int position, float factor, float* to, int stride) const {
    if (is_bfloat16_) {
      load_stage(static_cast<const BFloat16*>(view_.data), row, position, factor);
    } else {
      load_stage(static_cast<const float*>(view_.data), row, position, factor);
    }
    to_lanes(stage_, channels_, to, stride);
  }

  // The inverse, of [channels][kLanes], lane by lane times `factor`, for the first `tokens` lanes.
  void store(const float* from, Vec factor, int row, int position, int tokens) const {
    from_lanes(from, factor, channels_, stage_);
    if (is_bfloat16_) {
      store_stage(static_cast<BFloat16*>(view_.data), row, position, tokens);
    } else {
      store_stage(static_cast<float*>(view_.data), row, position, tokens);
    }
  }

 private:
  template <class T>
  void load_stage(const T* data, int row, int position, float factor) const {
    data += start_ + row * view_.row;
    const int64_t* token = view_.column + position;
    float* to = stage_;
    for (int lane = 0; lane < kLanes; ++lane, to += channels_) {
#pragma GCC unroll 4
      for (int channel = 0; channel < channels_; channel += kLanes) {
        __builtin_prefetch(data + token[lane + kLanes] + channel);
        const int left = channels_ - channel;
        const Vec x = load_channels(data + token[lane] + channel, left) * broadcast(factor);
        store_channels(to + channel, left, x);
      }
    }
  }

  template <class T>
  void store_stage(T* data, int row, int position, int tokens) const {
    data += start_ + row * view_.row;
    const int64_t* token = view_.column + position;
    const float* from = stage_;
    for (int lane = 0; lane < tokens; ++lane, from += channels_) {
#pragma GCC unroll 4
      for (int channel = 0; channel < channels_; channel += kLanes) {
        __builtin_prefetch(data + token[lane + kLanes] + channel, 1);
        const int left = channels_ - channel;
        store_channels(data + token[lane] + channel, left, load_channels(from + channel, left));
      }
    }
  }

  const View& view_;
  float* stage_;
  int64_t start_;
  int channels_;
  bool is_bfloat16_;
};

// Numbers of C neighbours of each lane, in [columns] from the block's first neighbour on.
template <int C, bool kPlain>
struct Neighbours {
  const Block& block;
  Mask exists[C];

  Neighbours(const Block& block, int from) : block(block) {
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

// Rings do not fit in the level-1 cache, and its hardware does not see what comes: the same columns
// of the channels further on, or of the next row.
inline void prefetch_ahead(const float* near, int stride) {
  constexpr int kChannelsAhead = 8;
  __builtin_prefetch(near + kChannelsAhead * stride);
  __builtin_prefetch(near + kChannelsAhead * stride + kLanes);
}

// sum[i][c] += tile[i] . neighbour c, over the channels.
template <int R, int C, bool kPlain>
NA2D_INLINE void add_products(Vec (&sum)[R][C], const float* tile, int tile_step, const float* near,
                         int stride, int channels, const Neighbours<C, kPlain>& neighbours) {
  for (int channel = 0; channel < channels; ++channel, tile += kLanes, near += stride) {
    prefetch_ahead(near, stride);
    Vec shared[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) shared[c] = neighbours(near, c);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Vec own = load(tile + i * tile_step);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[i][c] = multiply_add(own, shared[c], sum[i][c]);
    }
  }
}

// tile[i] += weight[i][c] * neighbour c, for each channel.
template <int R, int C, bool kPlain>
NA2D_INLINE void add_weighted(float* tile, int tile_step, const Vec (&weight)[R][C], const float* near,
                         int stride, int channels, const Neighbours<C, kPlain>& neighbours) {
  for (int channel = 0; channel < channels; ++channel, tile += kLanes, near += stride) {
    prefetch_ahead(near, stride);
    Vec sum[R];
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) sum[i] = load(tile + i * tile_step);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Vec shared = neighbours(near, c);
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

// Rows of a tile, [position, position + number); neighbours [first(i), last(i)) belong to row i.
struct TileRows {
  const Axis& axis;
  int position, number;

  int begin() const { return first(0); }
  int end() const { return last(number - 1); }
  int token(int i) const { return axis.token[position + i]; }
  int first(int i) const { return axis.first[position + i]; }
  int last(int i) const { return axis.first[position + i] + axis.count[position + i]; }

  // Row of the bias table for row i and a neighbour.
  int bias_row(int i, int near) const { return axis.offset[position + i] + near - first(i); }

  // Calls f(near, end, low, number) for each run [near, end) of neighbouring rows that the same rows
  // of the tile need, [low, low + number).
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

// Splits `count` neighbours of a row into nearly equal chunks: f(first, number).
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
  int ring_base, ring_end;  // columns that the rings hold

  Part(const Plan& plan, const Pass& pass, int64_t task) {
    // Heads first: what one task reads lies beside what the next one will.
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
    // The loads of blocks inside the map are aligned if the ring begins half a window to the left.
    ring_base = smaller(column_begin - pass.columns.kernel / 2, pass.columns.first[column_begin]);
    ring_end = pass.columns.first[column_end - 1] + pass.columns.count[column_end - 1];
  }

  // A block's numbers in [batch, height, width, heads]; lanes beyond its tokens are 0.
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

// Brings one row of a tensor into a ring.
inline void fill_row(const Ring& ring, const Part& part, const Axis& rows, const Head& head,
                     float factor, int position) {
  for (int column = part.ring_base; column < part.ring_end; column += kLanes) {
    float* to = ring.row(position) + (column - ring.base);
    head.load(rows.token[position], column, factor, to, ring.stride);
  }
}

// Runs over a part of the map: fill(row) brings a row of neighbours, tile(rows, block) works.
template <class Fill, class Tile>
inline void sweep(const Pass& pass, const Part& part, Scratch& scratch, Fill&& fill, Tile&& tile) {
  auto* const blocks = reinterpret_cast<Block*>(scratch.take(pass.strip_columns * sizeof(Block) / 4));
  int number = 0;
  for (int column = part.column_begin; column < part.column_end; column += blocks[number++].tokens) {
    new (blocks + number) Block(Block::at(pass.columns, column, part.column_end));
  }
  int filled = 0;
  for (int row = part.row_begin; row < part.row_end; row += kTileRows) {
    const TileRows rows{pass.rows, row, smaller(kTileRows, part.row_end - row)};
    for (filled = larger(filled, rows.begin()); filled < rows.end(); ++filled) fill(filled);
    for (int i = 0; i < number; ++i) tile(rows, blocks[i]);
  }
}

}  // namespace
