// Runs a kernel's shared library on numbers from standard input and writes what it computes to
// standard output, for test_aarch64.py: a machine without Python can be emulated with it.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "na2d.h"

extern "C" void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned);

namespace {

void check(bool fine, const char* what) {
  if (fine) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

template <class T>
T function(void* library, const char* name) {
  void* const found = dlsym(library, name);
  check(found != nullptr, name);
  return reinterpret_cast<T>(found);
}

std::vector<char> read_bytes(size_t bytes) {
  std::vector<char> data(bytes);
  check(fread(data.data(), 1, bytes, stdin) == bytes, "standard input is too short");
  return data;
}

}  // namespace

// argv: the library. Input: the numbers of Header; query, key, value and grad_output; bias.
// Output: output; the gradients of query, key, value; that of the bias.
int main(int, char** argv) {
  struct Header {
    int64_t batch, height, width, heads, head_dim, kernel[2], dilation[2], dtype, isa, threads;
    double scale;
  } header;
  check(fread(&header, sizeof header, 1, stdin) == 1, "standard input is too short");
  void* const library = dlopen(argv[1], RTLD_NOW);
  check(library != nullptr, "the library cannot be loaded");
  check(function<decltype(&na2d_has_isa)>(library, "na2d_has_isa")(int32_t(header.isa)),
        "the instruction set is not available");

  const na2d_problem problem = {
      header.batch, header.height, header.width, header.heads, header.head_dim,
      {header.kernel[0], header.kernel[1]}, {header.dilation[0], header.dilation[1]},
      header.scale, int32_t(header.dtype), int32_t(header.isa), int32_t(header.threads),
      GOMP_parallel};
  const int64_t column = header.heads * header.head_dim, row = column * header.width;
  const int64_t sample = row * header.height;
  const size_t bytes = header.batch * sample * (header.dtype == NA2D_FLOAT32 ? 4 : 2);
  const size_t table =
      header.heads * (2 * header.kernel[0] - 1) * (2 * header.kernel[1] - 1) * sizeof(float);
  const auto view = [&](std::vector<char>& data) {
    return na2d_tensor{data.data(), {sample, row, column, header.head_dim}};
  };
  const auto floats = [](std::vector<char>& data) { return reinterpret_cast<float*>(data.data()); };

  std::vector<char> in[4], out[4];
  na2d_tensor input[4], result[4];
  for (int i = 0; i < 4; ++i) {
    in[i] = read_bytes(bytes);
    out[i].resize(bytes);
    input[i] = view(in[i]);
    result[i] = view(out[i]);
  }
  std::vector<char> bias = read_bytes(table), grad_bias(table);
  const size_t queries = header.batch * header.height * header.width * header.heads;
  std::vector<float> largest(queries), total(queries);

  check(function<decltype(&na2d_forward)>(library, "na2d_forward")(
            &problem, &input[0], &input[1], &input[2], floats(bias), &result[0], largest.data(),
            total.data()) == NA2D_OK,
        "the forward pass failed");
  check(function<decltype(&na2d_backward)>(library, "na2d_backward")(
            &problem, &input[0], &input[1], &input[2], floats(bias), largest.data(), total.data(),
            &input[3], &result[1], &result[2], &result[3], floats(grad_bias)) == NA2D_OK,
        "the backward pass failed");
  for (const auto& data : out) fwrite(data.data(), 1, bytes, stdout);
  fwrite(grad_bias.data(), 1, table, stdout);
}
