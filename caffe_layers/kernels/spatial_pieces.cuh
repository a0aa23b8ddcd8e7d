#pragma once

#include "caffe_layers/kernels/cuda_launch.cuh"

// Pieces of 3x3, pad 1, convolutions whose maps are read 16 bytes at a time, in global memory; each done by one thread.

namespace caffe_layers {

constexpr int kTaps = 9;

/// values[i] = row[STRIDE * x - 1 + i]: what V outputs from column x on of a 3x3, pad 1, convolution read. Zeros
/// outside.
template <int STRIDE, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void load_window(const T* plane, int height, int width, int y, int x,
                                            T (&values)[STRIDE * (V - 1) + 3]) {
  const bool inside = y >= 0 && y < height;
  const T* row = plane + static_cast<unsigned>(inside ? y * width + STRIDE * x : 0);
  values[0] = inside && x > 0 ? row[-1] : T(0);
#pragma unroll
  for (int part = 0; part < STRIDE; ++part) {
    const Vector<T> middle = inside ? load_vector(row + part * V) : Vector<T>{};
#pragma unroll
    for (int e = 0; e < V; ++e) values[1 + part * V + e] = middle.at[e];
  }
  if (STRIDE == 1) values[V + 1] = inside && x + V < width ? row[V] : T(0);
}

/// sums[r][e] += 3x3, pad 1, convolution of one input map at output row y + r, column x + e. `flip` turns the kernel by
/// 180 degrees, as the gradient with respect to the data wants it.
template <int STRIDE, int ROWS, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void convolve_rows(const T* plane, int height, int width, int y, int x, const T* weight,
                                              bool flip, T (&sums)[ROWS][V]) {
  T w[kTaps];
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) w[tap] = weight[flip ? 8 - tap : tap];
#pragma unroll
  for (int r = 0; r < STRIDE * (ROWS - 1) + 3; ++r) {
    T window[STRIDE * (V - 1) + 3];
    load_window<STRIDE>(plane, height, width, STRIDE * y - 1 + r, x, window);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const int ky = r - STRIDE * row;
      if (ky < 0 || ky > 2) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) {
#pragma unroll
        for (int kx = 0; kx < 3; ++kx) sums[row][e] += w[ky * 3 + kx] * window[STRIDE * e + kx];
      }
    }
  }
}

}  // namespace caffe_layers
