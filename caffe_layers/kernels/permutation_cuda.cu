#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/permutation_cuda.hpp"

namespace caffe_layers {

namespace {

/// Planes that one thread copies a piece of: enough loads in flight to hide their latency.
constexpr int kPlanesPerThread = 4;

/// A block copies a run of planes; `columns` threads side by side share a plane of `units` values of type Unit.
template <typename Unit>
__global__ void permute_planes(const Unit* __restrict__ bottom, const int* __restrict__ perm, int planes, int channels,
                               int units, int columns, Unit* __restrict__ top) {
  const int rows = kThreads / columns;
  const int column = threadIdx.x % columns, row = threadIdx.x / columns;
  const size_t first = static_cast<size_t>(blockIdx.x) * rows * kPlanesPerThread + row;
  const Unit* from[kPlanesPerThread];
  Unit* to[kPlanesPerThread];
#pragma unroll
  for (int i = 0; i < kPlanesPerThread; ++i) {
    const size_t plane = first + static_cast<size_t>(i) * rows;
    to[i] = nullptr;
    if (plane >= static_cast<size_t>(planes)) continue;
    const int image = static_cast<int>(plane) / channels, channel = static_cast<int>(plane) % channels;
    from[i] = bottom + (static_cast<size_t>(image) * channels + perm[channel]) * units;
    to[i] = top + plane * units;
  }
  for (int unit = column; unit < units; unit += columns) {
    Unit value[kPlanesPerThread];
#pragma unroll
    for (int i = 0; i < kPlanesPerThread; ++i) {
      if (to[i]) value[i] = from[i][unit];
    }
#pragma unroll
    for (int i = 0; i < kPlanesPerThread; ++i) {
      if (to[i]) to[i][unit] = value[i];
    }
  }
}

template <typename Unit>
void permute(const Unit* bottom, const int* perm, int batch, int channels, int units, Unit* top, cudaStream_t stream) {
  int columns = 1;
  while (columns < units && columns < kThreads) columns *= 2;
  const int planes_per_block = kThreads / columns * kPlanesPerThread;
  const int planes = batch * channels;
  launch(permute_planes<Unit>, dim3(ceil_div(planes, planes_per_block)), 0, stream, bottom, perm, planes, channels,
         units, columns, top);
}

}  // namespace

template <typename T>
void permute_channels_cuda(const T* bottom, const int* perm, int batch, int channels, size_t plane, T* top,
                           cudaStream_t stream) {
  if (batch == 0 || plane == 0) return;
  const bool vectors = plane % Vector<T>::size == 0 && is_vector_aligned(bottom) && is_vector_aligned(top);
  if (vectors) {
    permute(reinterpret_cast<const Vector<T>*>(bottom), perm, batch, channels,
            static_cast<int>(plane / Vector<T>::size), reinterpret_cast<Vector<T>*>(top), stream);
  } else {
    permute(bottom, perm, batch, channels, static_cast<int>(plane), top, stream);
  }
}

template void permute_channels_cuda<float>(const float*, const int*, int, int, size_t, float*, cudaStream_t);
template void permute_channels_cuda<double>(const double*, const int*, int, int, size_t, double*, cudaStream_t);

}  // namespace caffe_layers
