// The C interface: plans a call, then runs its tasks on PyTorch's threads.

#include "na2d.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "plan.h"

namespace {

using na2d::Axis;
using na2d::kBiasStride;
using na2d::Kernels;
using na2d::kMargin;
using na2d::Pass;
using na2d::Plan;
using na2d::View;

// Chosen so that a task's rings of 32 channels fit in a level-2 cache of 512 KB to 1 MB.
constexpr int kStripColumns = 112;
constexpr int kChunkRows = 72;

const Kernels* kernels_of(int32_t isa) {
  switch (isa) {
    case NA2D_GENERIC: return &na2d::kGeneric;
#if defined(__x86_64__)
    case NA2D_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &na2d::kAvx2
                                                                             : nullptr;
    case NA2D_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
                 ? &na2d::kAvx512
                 : nullptr;
#elif defined(__aarch64__)
    case NA2D_NEON: return &na2d::kNeon;
#endif
  }
  return nullptr;
}

// Tables of an axis in both directions: the keys of each query, and the queries of each key.
struct AxisTables {
  std::vector<int32_t> token, first_key, key_count, key_offset;
  std::vector<int32_t> first_query, query_count, query_offset;
  int length, kernel;

  AxisTables(int length, int kernel, int dilation) : length(length), kernel(kernel) {
    std::vector<int32_t> starts;
    for (int residue = 0; residue < dilation; ++residue) {
      const int begin = int(token.size());
      for (int at = residue; at < length; at += dilation) token.push_back(at);
      const int tokens = int(token.size()) - begin;
      for (int i = 0; i < tokens; ++i) {
        first_key.push_back(begin + std::clamp(i - kernel / 2, 0, tokens - kernel));
      }
    }
    key_count.assign(length, kernel);
    first_query.assign(length, length);
    query_count.assign(length, 0);
    for (int query = 0; query < length; ++query) {
      for (int key = first_key[query]; key < first_key[query] + kernel; ++key) {
        first_query[key] = std::min(first_query[key], query);
        ++query_count[key];
      }
    }
    for (int position = 0; position < length; ++position) {
      key_offset.push_back(first_key[position] - position + kernel - 1);
      query_offset.push_back(first_query[position] - position + kernel - 1);
    }
    for (auto* table : {&token, &first_key, &key_offset, &first_query, &query_offset}) {
      table->insert(table->begin(), kMargin, table->front());
      table->insert(table->end(), kMargin, table->back());
    }
    for (auto* table : {&key_count, &query_count}) {
      table->insert(table->begin(), kMargin, 0);
      table->insert(table->end(), kMargin, 0);
    }
  }

  Axis by_query() const {
    return {length,
            kernel,
            token.data() + kMargin,
            first_key.data() + kMargin,
            key_count.data() + kMargin,
            key_offset.data() + kMargin};
  }
  Axis by_key() const {
    return {length,
            kernel,
            token.data() + kMargin,
            first_query.data() + kMargin,
            query_count.data() + kMargin,
            query_offset.data() + kMargin};
  }
};

int ceil_divide(int a, int b) { return (a + b - 1) / b; }

Pass plan_pass(const Axis& rows, const Axis& columns, const float* bias,
               const na2d_problem& problem, const Kernels& kernels) {
  Pass pass{};
  pass.rows = rows;
  pass.columns = columns;
  pass.bias = bias;
  pass.chunks = ceil_divide(rows.length, kChunkRows);
  // Nearly equal chunks of whole tiles.
  pass.chunk_rows =
      ceil_divide(ceil_divide(rows.length, pass.chunks), kernels.tile_rows) * kernels.tile_rows;
  pass.chunks = ceil_divide(rows.length, pass.chunk_rows);
  pass.strips = ceil_divide(columns.length, kStripColumns);
  pass.strip_columns =
      ceil_divide(ceil_divide(columns.length, pass.strips), kernels.lanes) * kernels.lanes;
  pass.strips = ceil_divide(columns.length, pass.strip_columns);
  for (int row = 0; row < rows.length; ++row) {
    const int last = std::min(row + kernels.tile_rows, rows.length) - 1;
    pass.ring_rows =
        std::max(pass.ring_rows, rows.first[last] + rows.count[last] - rows.first[row]);
  }
  int vectors = 0;
  for (int begin = 0; begin < columns.length; begin += pass.strip_columns) {
    const int last = std::min(begin + pass.strip_columns, columns.length) - 1;
    const int left = std::min(columns.first[begin], begin - columns.kernel / 2);
    const int width = columns.first[last] + columns.count[last] - left;
    vectors = std::max(vectors, ceil_divide(width, kernels.lanes));
  }
  // A stride of an odd number of cache lines spreads the channels over all sets of a cache.
  pass.ring_stride = (vectors * kernels.lanes + 15) / 16 * 16;
  if (pass.ring_stride % 32 == 0) pass.ring_stride += 16;
  pass.tasks = problem.batch * problem.heads * pass.chunks * pass.strips;

  const int64_t channels = problem.head_dim + 1;
  const int64_t rings = 2 * channels * pass.ring_stride * pass.ring_rows;
  const int64_t tiles = 5 * channels * kernels.lanes * kernels.tile_rows;
  const int64_t window = int64_t(rows.kernel) * columns.kernel;
  const int64_t tables = 4 * window * kernels.lanes * kernels.tile_rows;
  const int64_t blocks = int64_t(pass.strip_columns) * na2d::kBlockBytes / sizeof(float);
  const int64_t rounding = 16 * 16;
  // Loads may reach up to three vectors beyond a ring's end; what they read there is not used.
  pass.scratch = rings + tiles + tables + blocks + rounding + 4 * kernels.lanes;
  return pass;
}

// Returns the bias with padded rows; for the pass by keys, both axes are reversed.
std::vector<float> bias_table(const float* bias, const na2d_problem& problem, bool turned) {
  const int64_t rows = 2 * problem.kernel[0] - 1, columns = 2 * problem.kernel[1] - 1;
  std::vector<float> table(problem.heads * rows * kBiasStride, 0.0f);
  if (!bias) return table;
  for (int64_t head = 0; head < problem.heads; ++head) {
    for (int64_t row = 0; row < rows; ++row, bias += columns) {
      float* to = table.data() + (head * rows + (turned ? rows - 1 - row : row)) * kBiasStride;
      for (int64_t column = 0; column < columns; ++column) {
        to[turned ? columns - 1 - column : column] = bias[column];
      }
    }
  }
  return table;
}

// Returns the calling thread's scratch memory, kept between calls: fresh pages would cost more time
// than a small map.
float* scratch_memory(int64_t floats) {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<float, Free> memory;
  thread_local int64_t size = 0;
  if (size < floats) {
    size = (floats + 15) / 16 * 16;
    memory.reset();
    memory.reset(static_cast<float*>(std::aligned_alloc(64, size * sizeof(float))));
    if (memory) {
      std::memset(memory.get(), 0, size * sizeof(float));
    } else {
      size = 0;
    }
  }
  return memory.get();
}

// Owns everything that a Plan points to.
class Call {
 public:
  Plan plan{};
  const Kernels* kernels;

  Call(const na2d_problem& problem, const float* bias)
      : kernels(kernels_of(problem.isa)),
        threads_(problem.threads),
        parallel_(problem.parallel),
        rows_(int(problem.height), int(problem.kernel[0]), int(problem.dilation[0])),
        columns_(int(problem.width), int(problem.kernel[1]), int(problem.dilation[1])),
        bias_(bias_table(bias, problem, false)) {
    plan.batch = problem.batch;
    plan.height = problem.height;
    plan.width = problem.width;
    plan.heads = problem.heads;
    plan.channels = int(problem.head_dim);
    plan.scale = float(problem.scale);
    plan.is_bfloat16 = problem.dtype == NA2D_BFLOAT16;
    plan.by_query =
        plan_pass(rows_.by_query(), columns_.by_query(), bias_.data(), problem, *kernels);
    column_offsets_.reserve(8);  // views point into it
  }

  void plan_by_key(const na2d_problem& problem, const float* bias) {
    turned_bias_ = bias_table(bias, problem, true);
    plan.by_key =
        plan_pass(rows_.by_key(), columns_.by_key(), turned_bias_.data(), problem, *kernels);
  }

  View view(const na2d_tensor& tensor) {
    auto& offsets = column_offsets_.emplace_back();
    for (const int32_t token : columns_.token) offsets.push_back(token * tensor.stride[2]);
    const int64_t number_size = plan.is_bfloat16 ? sizeof(na2d::BFloat16) : sizeof(float);
    bool whole_lines = reinterpret_cast<uintptr_t>(tensor.data) % na2d::kLineBytes == 0 &&
                       plan.channels * number_size % na2d::kLineBytes == 0;
    for (const int64_t stride : tensor.stride) {
      whole_lines = whole_lines && stride * number_size % na2d::kLineBytes == 0;
    }
    return {tensor.data,      tensor.stride[0],           tensor.stride[1],
            tensor.stride[3], offsets.data() + kMargin, whole_lines};
  }

  // Runs all tasks of a pass; returns false if memory runs out.
  bool run(void (*kernel)(const Plan&, int64_t, float*), const Pass& pass) const {
    std::atomic<bool> complete{true};
    std::atomic<int64_t> started{0};
    auto work = [&] {
      float* scratch = scratch_memory(pass.scratch);
      if (!scratch) {
        complete = false;
        return;
      }
      for (int64_t task; (task = started.fetch_add(1, std::memory_order_relaxed)) < pass.tasks;) {
        kernel(plan, task, scratch);
      }
      // Stores that bypass the caches become visible to other threads only here.
      std::atomic_thread_fence(std::memory_order_seq_cst);
    };
    const int threads = int(std::min<int64_t>(threads_, pass.tasks));
    if (threads <= 1) {
      work();
    } else {
      parallel_([](void* data) { (*static_cast<decltype(work)*>(data))(); }, &work, threads, 0);
    }
    return complete;
  }

 private:
  int threads_;
  na2d_parallel parallel_;
  AxisTables rows_, columns_;
  std::vector<float> bias_, turned_bias_;
  std::vector<std::vector<int64_t>> column_offsets_;
};

int32_t forward(const na2d_problem& problem, const na2d_tensor& query, const na2d_tensor& key,
                const na2d_tensor& value, const float* bias, const na2d_tensor& output,
                float* largest, float* total) {
  Call call(problem, bias);
  Plan& plan = call.plan;
  plan.query = call.view(query);
  plan.key = call.view(key);
  plan.value = call.view(value);
  plan.output = call.view(output);
  plan.largest = largest;
  plan.total = total;
  return call.run(call.kernels->forward, plan.by_query) ? NA2D_OK : NA2D_OUT_OF_MEMORY;
}

int32_t backward(const na2d_problem& problem, const na2d_tensor& query, const na2d_tensor& key,
                 const na2d_tensor& value, const float* bias, const float* largest,
                 const float* total, const na2d_tensor& grad_output, const na2d_tensor& grad_query,
                 const na2d_tensor& grad_key, const na2d_tensor& grad_value, float* grad_bias) {
  Call call(problem, bias);
  call.plan_by_key(problem, bias);
  Plan& plan = call.plan;
  plan.query = call.view(query);
  plan.key = call.view(key);
  plan.value = call.view(value);
  plan.grad_output = call.view(grad_output);
  plan.grad_query = call.view(grad_query);
  plan.grad_key = call.view(grad_key);
  plan.grad_value = call.view(grad_value);
  plan.largest = const_cast<float*>(largest);  // the backward kernels only read them
  plan.total = const_cast<float*>(total);
  std::vector<float> delta(problem.batch * problem.height * problem.width * problem.heads);
  plan.delta = delta.data();
  const int64_t entries = (2 * problem.kernel[0] - 1) * (2 * problem.kernel[1] - 1);
  std::vector<float> sums(grad_bias ? plan.by_query.tasks * entries : 0);
  plan.grad_bias = grad_bias ? sums.data() : nullptr;
  if (!call.run(call.kernels->query_gradient, plan.by_query) ||
      !call.run(call.kernels->key_gradient, plan.by_key)) {
    return NA2D_OUT_OF_MEMORY;
  }
  if (grad_bias) {
    // Always sums in the order of the tasks, whichever threads ran them.
    std::vector<double> sum(problem.heads * entries, 0.0);
    for (int64_t task = 0; task < plan.by_query.tasks; ++task) {
      const int64_t head = task % problem.heads;
      for (int64_t i = 0; i < entries; ++i) sum[head * entries + i] += sums[task * entries + i];
    }
    std::copy(sum.begin(), sum.end(), grad_bias);
  }
  return NA2D_OK;
}

// Runs a call; exceptions must not propagate through the C interface.
template <class F>
int32_t guarded(const na2d_problem* problem, F&& call) {
  if (!kernels_of(problem->isa)) return NA2D_UNSUPPORTED_ISA;
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return NA2D_OUT_OF_MEMORY;
  }
}

}  // namespace

int32_t na2d_interface() { return NA2D_INTERFACE; }

int32_t na2d_has_isa(int32_t isa) { return kernels_of(isa) != nullptr; }

int32_t na2d_forward(const na2d_problem* problem, const na2d_tensor* query, const na2d_tensor* key,
                     const na2d_tensor* value, const float* bias, const na2d_tensor* output,
                     float* largest, float* total) {
  return guarded(problem, [&] {
    return forward(*problem, *query, *key, *value, bias, *output, largest, total);
  });
}

int32_t na2d_backward(const na2d_problem* problem, const na2d_tensor* query, const na2d_tensor* key,
                      const na2d_tensor* value, const float* bias, const float* largest,
                      const float* total, const na2d_tensor* grad_output,
                      const na2d_tensor* grad_query, const na2d_tensor* grad_key,
                      const na2d_tensor* grad_value, float* grad_bias) {
  return guarded(problem, [&] {
    return backward(*problem, *query, *key, *value, bias, largest, total, *grad_output,
                    *grad_query, *grad_key, *grad_value, grad_bias);
  });
}
