// Two-dimensional neighborhood attention on the CPU: the C interface that Python loads.
//
// Nothing here knows Python or PyTorch. Tensors are addresses with strides, in elements; the last
// dimension, the channels of a head, is contiguous everywhere.

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
// kernel linked to a runtime, it could bring a second one into a process that has PyTorch's.
typedef void (*na2d_parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

struct na2d_problem {
  int64_t batch, height, width, heads;
  int64_t head_dim;     // a multiple of 8
  int64_t kernel[2];    // rows, columns; odd, 3 to 13
  int64_t dilation[2];  // kernel * dilation <= height, width
  double scale;
  int32_t
      dtype;    // na2d_dtype of all tensors but bias, largest, total and their kin, which are float32
  int32_t isa;             // na2d_isa to run
  int32_t threads;         // at most this many
  na2d_parallel parallel;  // not called with 1 thread, and may be null then
};

// Number of this interface, raised with every change of it.
constexpr int32_t NA2D_INTERFACE = 3;
NA2D_PUBLIC int32_t na2d_interface();

// Whether this machine and this build can run an instruction set.
NA2D_PUBLIC int32_t na2d_has_isa(int32_t isa);

// bias: [heads, 2 * rows - 1, 2 * columns - 1] or null. largest and total, each [batch, height,
// width, heads], are for the backward pass: each query's largest score, times log2(e), and the sum
// of exp(score - largest score). Not one log-sum-exp: rounded, it is off by enough at scores of
// hundreds for weights made from it to miss a sum of 1 by more than all their other errors.
NA2D_PUBLIC int32_t na2d_forward(const na2d_problem* problem, const na2d_tensor* query,
                                 const na2d_tensor* key, const na2d_tensor* value,
                                 const float* bias, const na2d_tensor* output, float* largest,
                                 float* total);

// grad_bias: like bias, and null where bias is.
NA2D_PUBLIC int32_t na2d_backward(const na2d_problem* problem, const na2d_tensor* query,
                                  const na2d_tensor* key, const na2d_tensor* value,
                                  const float* bias, const float* largest, const float* total,
                                  const na2d_tensor* grad_output, const na2d_tensor* grad_query,
                                  const na2d_tensor* grad_key, const na2d_tensor* grad_value,
                                  float* grad_bias);
