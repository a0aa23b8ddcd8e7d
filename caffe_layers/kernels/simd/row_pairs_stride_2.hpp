#pragma once

// As row_pairs.hpp with stride 2: two output rows in a vector, from input rows that are a whole vector each. What a
// kernel's row meets are the even and the odd pixels of two input rows, two apart.

#include "caffe_layers/kernels/simd/row_pairs.hpp"

namespace caffe_layers {
namespace {

/// Row y of a plane; those outside are zero.
template <typename T>
ALWAYS_INLINE Vector<T> load_line(const Plane<T>& plane, int y) {
  return y < 0 || y >= plane.height ? Vector<T>{} : load(plane.data + static_cast<ptrdiff_t>(y) * kLanes<T>);
}

/// As depthwise with stride 2. The sum of the kernel's left column is shifted, not its inputs.
template <typename T>
void depthwise_pairs_stride_2(const Plane<T>& in, int first_row, int rows, int, const T* weight, T bias, T* out,
                              const T* ahead) {
  Vector<T> w[9], line[5];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) w[t] = broadcast(weight[t]);
  line[0] = load_line(in, 2 * first_row - 1);
  for (int row = 0; row < rows; row += 2) {
    const int y = 2 * (first_row + row), at = row * kPairWidth<T>;
#pragma GCC unroll 4
    for (int l = 1; l < 5; ++l) {
      line[l] = load_line(in, y - 1 + l);
      __builtin_prefetch(in.ahead + (y - 1 + l) * kLanes<T>, 0, 2);
    }
    if (ahead) __builtin_prefetch(ahead + at, 1);
    Vector<T> left = {}, middle = broadcast(bias), right = {};
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      const Vector<T> odd = odd_pixels<T>(line[ky], line[ky + 2]);
      left += w[3 * ky] * odd;
      middle += w[3 * ky + 1] * even_pixels<T>(line[ky], line[ky + 2]);
      right += w[3 * ky + 2] * odd;
    }
    const Vector<T> sum = middle + right + shift_pair<T, 0>(left);
    store_first(out + at, sum, smaller(rows - row, 2) * kPairWidth<T>);
    line[0] = line[4];
  }
}

/// As direct_pairs.
template <typename T, int OUTPUTS, int PAIRS>
inline void direct_pairs_stride_2(const Plane<T>* in, int inputs, int y, int rows, const T* weight, const T* bias,
                                  T* const* out, ptrdiff_t out_at) {
  Vector<T> sum[OUTPUTS][PAIRS];
  start_sums<T, OUTPUTS>(bias, sum);
  for (int i = 0; i < inputs; ++i) {
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      Vector<T> x[3][PAIRS];
#pragma GCC unroll 4
      for (int p = 0; p < PAIRS; ++p) {
        const int upper = 2 * (y + 2 * p) + ky - 1;
        const Vector<T> a = load_line(in[i], upper), b = load_line(in[i], upper + 2);
        x[1][p] = even_pixels<T>(a, b);
        x[2][p] = odd_pixels<T>(a, b);
        x[0][p] = shift_pair<T, 0>(x[2][p]);
      }
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
#pragma GCC unroll 4
        for (int o = 0; o < OUTPUTS; ++o) {
          const Vector<T> value = broadcast(weight[9 * (o * inputs + i) + 3 * ky + kx]);
#pragma GCC unroll 4
          for (int p = 0; p < PAIRS; ++p) sum[o][p] += value * x[kx][p];
        }
      }
    }
  }
  store_pairs<T, OUTPUTS, PAIRS>(sum, rows, out, out_at);
}

/// As weight_gradient_2.
template <typename T>
void weight_gradient_pairs_stride_2(const Plane<T>& in, const T* out_diff, int height, Vector<T>* place) {
  Vector<T> line[5] = {load_line(in, -1)}, sum[9] = {};
  for (int y = 0; y < height; y += 2) {
#pragma GCC unroll 4
    for (int l = 1; l < 5; ++l) {
      line[l] = load_line(in, 2 * y - 1 + l);
      __builtin_prefetch(in.ahead + (2 * y - 1 + l) * kLanes<T>, 0, 2);
    }
    const Vector<T> dy = load_pair(out_diff, height, y), next = shift_pair<T, 2>(dy);
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      const Vector<T> odd = odd_pixels<T>(line[ky], line[ky + 2]);
      sum[3 * ky] += next * odd;
      sum[3 * ky + 1] += dy * even_pixels<T>(line[ky], line[ky + 2]);
      sum[3 * ky + 2] += dy * odd;
    }
    line[0] = line[4];
  }
  put_sums<T>(sum, true, place);
}

/// As direct_transposed: the gradients of two rows of outputs and those below go to four rows of the input.
template <typename T>
void transposed_pairs(const Plane<T>* out_diff, int outputs, const T* weight, int weight_stride, int height, T* in_diff,
                      const T* ahead, bool streamed) {
  for (int y = 0; y < out_diff->height; y += 2) {
    if (ahead) fetch_run<false>(ahead + static_cast<ptrdiff_t>(2 * y) * kLanes<T>, 4 * kLanes<T>);
    Vector<T> sum[4] = {};  // even and odd pixels of the even rows, then of the odd rows
    const T* w = weight;
    for (int o = 0; o < outputs; ++o, w += weight_stride) {
      const Vector<T> here = load_pair(out_diff[o].data, out_diff->height, y), right = shift_pair<T, 2>(here);
      const Vector<T> below = load_pair(out_diff[o].data, out_diff->height, y + 1);
      sum[0] += broadcast(w[4]) * here;
      sum[1] += broadcast(w[5]) * here;
      sum[2] += broadcast(w[7]) * here;
      sum[3] += broadcast(w[8]) * here;
      sum[1] += broadcast(w[3]) * right;
      sum[2] += broadcast(w[1]) * below;
      sum[3] += broadcast(w[6]) * right;
      sum[3] += broadcast(w[2]) * below;
      sum[3] += broadcast(w[0]) * shift_pair<T, 2>(below);
    }
    T* to = in_diff + static_cast<ptrdiff_t>(2 * y) * kLanes<T>;
#pragma GCC unroll 4
    for (int row = 0; row < 4; ++row, to += kLanes<T>) {
      const Vector<T> even = sum[row % 2 * 2], odd = sum[row % 2 * 2 + 1];
      if (2 * y + row < height)
        store(to, row < 2 ? interleave<T, 0, false>(even, odd) : interleave<T, 1, false>(even, odd), streamed);
    }
  }
}

}  // namespace
}  // namespace caffe_layers
