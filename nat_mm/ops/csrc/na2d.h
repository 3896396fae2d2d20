// C interface to two-dimensional neighborhood attention on the CPU, which Python loads.
//
// Nothing here depends on Python or PyTorch. Tensors are addresses with strides, in elements; the
// last dimension, the channels of a head, is always contiguous.

#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define NA2D_PUBLIC extern "C" __attribute__((visibility("default")))
#else
#define NA2D_PUBLIC extern "C"
#endif

enum na2d_dtype : int32_t { NA2D_FLOAT32 = 0, NA2D_BFLOAT16 = 1 };

enum na2d_isa : int32_t { NA2D_GENERIC = 0, NA2D_AVX2 = 1, NA2D_AVX512 = 2, NA2D_NEON = 3 };

enum na2d_status : int32_t { NA2D_OK = 0, NA2D_OUT_OF_MEMORY = 1, NA2D_UNSUPPORTED_ISA = 2 };

// [batch, height, width, heads, head_dim].
struct na2d_tensor {
  void* data;
  int64_t stride[4];  // of batch, height, width, heads
};

// GOMP_parallel of the OpenMP runtime to use: runs work(data) on each of `threads` threads. If the
// kernel linked to a runtime itself, the process could end up with a second one besides PyTorch's.
typedef void (*na2d_parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

struct na2d_problem {
  int64_t batch, height, width, heads;
  int64_t head_dim;     // a multiple of 8
  int64_t kernel[2];    // rows, columns; odd, 1 to 13
  int64_t dilation[2];  // kernel * dilation <= height, width
  double scale;
  int32_t
      dtype;    // na2d_dtype of all tensors but bias, largest, total and their kin, which are float32
  int32_t isa;             // na2d_isa to use
  int32_t threads;         // at most this many
  na2d_parallel parallel;  // not called with 1 thread; may then be null
};

// Version of this interface, incremented with every change.
constexpr int32_t NA2D_INTERFACE = 3;
NA2D_PUBLIC int32_t na2d_interface();

// Returns whether this machine and this build support an instruction set.
NA2D_PUBLIC int32_t na2d_has_isa(int32_t isa);

// bias: [heads, 2 * rows - 1, 2 * columns - 1] or null. largest and total, each
// [batch, height, width, heads], are for the backward pass: each query's largest score, times
// log2(e), and the sum of exp(score - largest score). A single log-sum-exp would not do: at scores
// in the hundreds, its rounding makes the sum of the weights deviate from 1 by more than all their
// other errors.
NA2D_PUBLIC int32_t na2d_forward(const na2d_problem* problem, const na2d_tensor* query,
                                 const na2d_tensor* key, const na2d_tensor* value,
                                 const float* bias, const na2d_tensor* output, float* largest,
                                 float* total);

// grad_bias: shaped like bias, and null if bias is.
NA2D_PUBLIC int32_t na2d_backward(const na2d_problem* problem, const na2d_tensor* query,
                                  const na2d_tensor* key, const na2d_tensor* value,
                                  const float* bias, const float* largest, const float* total,
                                  const na2d_tensor* grad_output, const na2d_tensor* grad_query,
                                  const na2d_tensor* grad_key, const na2d_tensor* grad_value,
                                  float* grad_bias);
