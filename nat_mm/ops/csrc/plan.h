// The plan of a call, made once by na2d.cpp for the kernels of an instruction set.

#pragma once

#include "na2d.h"

namespace na2d {

struct BFloat16 {
  uint16_t bits;
};

// One axis of the map. Positions number its tokens one residue class after another, so that a
// window is a run of consecutive positions at any dilation. The tables extend from -kMargin to
// length + kMargin; the margins repeat the values at the ends, except that count is 0.
struct Axis {
  int length;
  int kernel;
  const int32_t* token;   // index of the token on the map's axis
  const int32_t* first;   // position of its first neighbor; never decreases
  const int32_t* count;   // number of its neighbors
  const int32_t* offset;  // entry of the bias table's axis for the first neighbor
};

constexpr int kMargin = 64;
constexpr int kLineBytes = 64;

// A tensor [batch, height, width, heads, head_dim] with a table of its columns' offsets.
struct View {
  void* data;
  int64_t batch, row, head;
  const int64_t* column;  // in elements, by position, starting at -kMargin
  bool whole_lines;       // whether a token's head exactly fills its own cache lines
};

// A pass computes tiles of tokens from their neighbors: queries from their keys, or keys from the
// queries that attend to them. A task is a strip of columns in a chunk of rows of one head of one
// sample. It keeps the neighbors of its current rows in rings of rows.
struct Pass {
  Axis rows, columns;
  const float* bias;  // [heads, 2 * kernel rows - 1, kBiasStride]
  int chunk_rows, chunks;
  int strip_columns, strips;
  int ring_rows;
  int ring_stride;  // floats from one channel of a ring to the next
  int64_t tasks;
  int64_t scratch;  // floats that a task needs
};

constexpr int kBiasStride = 64;
constexpr int kBlockBytes = 512;  // scratch memory per column of a strip

struct Plan {
  int64_t batch, height, width, heads;
  int channels;
  float scale;
  bool is_bfloat16;
  Pass by_query, by_key;
  View query, key, value, output, grad_output, grad_query, grad_key, grad_value;
  float *largest, *total;  // [batch, height, width, heads]; see na2d.h
  float* delta;            // same shape: the sum of weights * their gradients, over the total
  float* grad_bias;        // [tasks of by_query, 2 * rows - 1, 2 * columns - 1] or null
};

// Kernels of one instruction set. `scratch` is aligned to 64 bytes.
struct Kernels {
  int lanes;
  int tile_rows;
  void (*forward)(const Plan& plan, int64_t task, float* scratch);
  void (*query_gradient)(const Plan& plan, int64_t task, float* scratch);
  void (*key_gradient)(const Plan& plan, int64_t task, float* scratch);
};

extern const Kernels kGeneric;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#elif defined(__aarch64__)
extern const Kernels kNeon;
#endif

}  // namespace na2d
