#include <algorithm>

#include "caffe_layers/kernels/clear_cuda.hpp"
#include "caffe_layers/kernels/cuda_launch.cuh"

namespace caffe_layers {

namespace {

/// Kernel parameters may take 4 KB (CUDA Programming Guide, function parameters).
struct DeviceArrays {
  static constexpr int kMax = 240;
  DeviceArray at[kMax];
};

/// Blocks that share one array, at most.
constexpr size_t kMaxBlocks = 1024;

/// blockIdx.y is the array.
__global__ void __launch_bounds__(kThreads) clear(DeviceArrays arrays) {
  using Word = unsigned;
  const DeviceArray& array = arrays.at[blockIdx.y];
  Word* words = static_cast<Word*>(array.address);
  const size_t count = array.bytes / sizeof(Word);
  const size_t vectors = is_vector_aligned(words) ? count / Vector<Word>::size : 0;
  const size_t first = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  const size_t stride = static_cast<size_t>(gridDim.x) * kThreads;
  for (size_t i = first; i < vectors; i += stride) store(words + i * Vector<Word>::size, Vector<Word>{});
  for (size_t i = vectors * Vector<Word>::size + first; i < count; i += stride) words[i] = 0;
}

}  // namespace

void clear_arrays_cuda(const DeviceArray* arrays, int count, cudaStream_t stream) {
  for (int first = 0; first < count; first += DeviceArrays::kMax) {
    const int some = std::min(count - first, DeviceArrays::kMax);
    DeviceArrays group = {};
    size_t largest = 1;
    for (int a = 0; a < some; ++a) {
      group.at[a] = arrays[first + a];
      largest = std::max(largest, group.at[a].bytes);
    }
    const size_t blocks = std::min(ceil_div(largest, kThreads * sizeof(Vector<unsigned>)), kMaxBlocks);
    launch(clear, dim3(static_cast<unsigned>(blocks), some), 0, stream, group);
  }
}

}  // namespace caffe_layers
