// Runs the CPU kernel on tensors that lie against pages nobody may touch, so that reading or writing
// one element outside ends the program. AddressSanitizer watches the kernel's own memory meanwhile.

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "na2d.h"

extern "C" void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);

namespace {

enum class Place { kStart, kEnd };  // which end of a tensor lies against a forbidden page

class Guarded {
 public:
  Guarded(size_t bytes, Place place) {
    const size_t page = sysconf(_SC_PAGESIZE);
    const size_t inside = (bytes + page - 1) / page * page;
    size_ = inside + 2 * page;
    pages_ = static_cast<char*>(
        mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages_ == MAP_FAILED || mprotect(pages_ + page, inside, PROT_READ | PROT_WRITE)) abort();
    data_ = pages_ + page + (place == Place::kEnd ? inside - bytes : 0);
  }
  ~Guarded() { munmap(pages_, size_); }
  Guarded(const Guarded&) = delete;

  void* data() const { return data_; }

 private:
  char* pages_;
  char* data_;
  size_t size_;
};

struct Shape {
  int64_t batch, height, width, heads, head_dim, kernel[2], dilation[2];
};

class Tensor {
 public:
  // Channels of a head are contiguous, heads `gap` times as far apart as they need to be.
  Tensor(const Shape& shape, na2d_dtype dtype, Place place, int gap)
      : extent_(extent(shape, gap)),
        dtype_(dtype),
        memory_(extent_ * (dtype == NA2D_FLOAT32 ? 4 : 2), place) {
    const int64_t head = gap * shape.head_dim, column = head * shape.heads;
    const int64_t row = column * shape.width;
    view = {memory_.data(), {row * shape.height, row, column, head}};
    for (int64_t i = 0; i < extent_; ++i) {
      const float number = float(rand()) / float(RAND_MAX) - 0.5f;
      if (dtype == NA2D_FLOAT32) {
        static_cast<float*>(view.data)[i] = number;
      } else {
        static_cast<uint16_t*>(view.data)[i] = high_half(number);
      }
    }
  }

  bool is_finite() const {
    for (int64_t i = 0; i < extent_; ++i) {
      const uint16_t high = dtype_ == NA2D_FLOAT32 ? high_half(static_cast<float*>(view.data)[i])
                                                   : static_cast<uint16_t*>(view.data)[i];
      if ((high & 0x7f80) == 0x7f80) return false;
    }
    return true;
  }

  na2d_tensor view;

 private:
  static int64_t extent(const Shape& shape, int gap) {
    const int64_t heads = shape.batch * shape.height * shape.width * shape.heads;
    return (heads - 1) * gap * shape.head_dim + shape.head_dim;
  }
  static uint16_t high_half(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return uint16_t(bits >> 16);
  }

  int64_t extent_;
  na2d_dtype dtype_;
  Guarded memory_;
};

void run(const Shape& shape, na2d_dtype dtype, int isa, int threads, Place place, int gap,
         bool with_bias) {
  const Tensor query(shape, dtype, place, gap), key(shape, dtype, place, gap);
  const Tensor value(shape, dtype, place, gap), grad_output(shape, dtype, place, gap);
  const Tensor output(shape, dtype, place, 1), grad_query(shape, dtype, place, 1);
  const Tensor grad_key(shape, dtype, place, 1), grad_value(shape, dtype, place, 1);
  const int64_t table = shape.heads * (2 * shape.kernel[0] - 1) * (2 * shape.kernel[1] - 1);
  const Guarded bias(table * sizeof(float), place), grad_bias(table * sizeof(float), place);
  const int64_t numbers = shape.batch * shape.height * shape.width * shape.heads;
  const Guarded largest(numbers * sizeof(float), place), total(numbers * sizeof(float), place);
  const na2d_problem problem = {
      shape.batch, shape.height, shape.width, shape.heads, shape.head_dim,
      {shape.kernel[0], shape.kernel[1]}, {shape.dilation[0], shape.dilation[1]},
      0.3, dtype, isa, threads, GOMP_parallel};
  const auto* table_in = with_bias ? static_cast<const float*>(bias.data()) : nullptr;
  auto* table_out = with_bias ? static_cast<float*>(grad_bias.data()) : nullptr;
  auto* most = static_cast<float*>(largest.data());
  auto* sums = static_cast<float*>(total.data());
  const int32_t status =
      na2d_forward(&problem, &query.view, &key.view, &value.view, table_in, &output.view, most,
                   sums) |
      na2d_backward(&problem, &query.view, &key.view, &value.view, table_in, most, sums,
                    &grad_output.view, &grad_query.view, &grad_key.view, &grad_value.view,
                    table_out);
  if (status != NA2D_OK || !output.is_finite() || !grad_query.is_finite() ||
      !grad_key.is_finite() || !grad_value.is_finite()) {
    fprintf(stderr, "status %d or a result that is not finite\n", status);
    abort();
  }
}

}  // namespace

int main() {
  const std::vector<Shape> shapes = {
      {1, 3, 3, 1, 8, {3, 3}, {1, 1}},     {2, 7, 8, 2, 32, {7, 7}, {1, 1}},
      {1, 14, 15, 1, 32, {7, 7}, {2, 2}},  {1, 13, 13, 1, 16, {13, 13}, {1, 1}},
      {1, 5, 28, 2, 40, {5, 9}, {1, 3}},   {1, 23, 9, 3, 24, {11, 3}, {2, 3}},
      {1, 4, 131, 1, 32, {3, 3}, {1, 1}},  {1, 41, 17, 1, 64, {5, 5}, {3, 1}},
      {1, 39, 33, 2, 32, {7, 7}, {1, 1}},
  };
  int runs = 0;
  for (int isa = NA2D_GENERIC; isa <= NA2D_NEON; ++isa) {
    if (!na2d_has_isa(isa)) continue;
    for (const Shape& shape : shapes) {
      for (const na2d_dtype dtype : {NA2D_FLOAT32, NA2D_BFLOAT16}) {
        for (const Place place : {Place::kStart, Place::kEnd}) {
          run(shape, dtype, isa, 1 + runs % 3, place, runs % 5 < 2 ? 3 : 1, runs % 7 < 5);
          ++runs;
        }
      }
    }
  }
  printf("%d runs\n", runs);
}
