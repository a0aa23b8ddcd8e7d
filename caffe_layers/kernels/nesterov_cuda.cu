#include <algorithm>

#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/nesterov_cuda.hpp"

namespace caffe_layers {

namespace {

/// As many as the 4 KB of a kernel's parameters hold (CUDA Programming Guide, function parameters), with the step and
/// its alignment.
template <typename T>
struct ParameterArrays {
  static constexpr int kMax = (4096 - sizeof(NesterovStep<T>) - 8) / sizeof(ParameterArray<T>);
  ParameterArray<T> at[kMax];
};

/// Blocks that share one array, at most: a large one keeps the whole device busy.
constexpr size_t kMaxBlocks = 512;
constexpr size_t kValuesPerThread = 4;

/// blockIdx.y is the array.
template <typename T>
__global__ void __launch_bounds__(kThreads) nesterov_update(ParameterArrays<T> arrays, NesterovStep<T> step) {
  const ParameterArray<T>& p = arrays.at[blockIdx.y];
  const size_t stride = static_cast<size_t>(gridDim.x) * kThreads;
  for (size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.count; i += stride) {
    const T w = p.data[i], before = p.history[i];
    const T g = step.gradient_scale * p.gradient[i] + p.decay * (step.l1 ? T(w > 0) - T(w < 0) : w);
    const T v = step.momentum * before + p.rate * g;
    p.history[i] = v;
    p.data[i] = w - ((1 + step.momentum) * v - step.momentum * before);
  }
}

}  // namespace

template <typename T>
void nesterov_update_cuda(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step,
                          cudaStream_t stream) {
  for (int first = 0; first < arrays; first += ParameterArrays<T>::kMax) {
    const int some = std::min(arrays - first, ParameterArrays<T>::kMax);
    ParameterArrays<T> group = {};
    size_t largest = 1;
    for (int a = 0; a < some; ++a) {
      group.at[a] = parameters[first + a];
      largest = std::max(largest, group.at[a].count);
    }
    const size_t blocks = std::min(ceil_div(largest, kValuesPerThread * kThreads), kMaxBlocks);
    launch(nesterov_update<T>, dim3(static_cast<unsigned>(blocks), some), 0, stream, group, step);
  }
}

template void nesterov_update_cuda<float>(const ParameterArray<float>*, int, const NesterovStep<float>&, cudaStream_t);
template void nesterov_update_cuda<double>(const ParameterArray<double>*, int, const NesterovStep<double>&,
                                           cudaStream_t);

}  // namespace caffe_layers
