#pragma once

#include <cuda_runtime.h>

namespace caffe_layers {

/// Arrays that lie one after the other in each slice of partial sums, and where their sums go.
template <typename T>
struct Segments {
  static constexpr int kMax = 20;
  int count = 0;
  /// Segment i: entries first[i] .. first[i + 1] - 1 of a slice.
  int first[kMax + 1] = {0};
  T* to[kMax] = {};

  void add(T* target, int size) {
    to[count] = target;
    first[count + 1] = first[count] + size;
    ++count;
  }
  __host__ __device__ int size() const { return first[count]; }
};

/// Second stage of the parameters' gradients: target[i] += sum over slices of partials[slice][i], in a fixed order.
template <typename T>
void add_partial_sums(const T* partials, int slices, const Segments<T>& segments, cudaStream_t stream);

}  // namespace caffe_layers
