#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/partial_sums.cuh"

namespace caffe_layers {

namespace {

/// A block sums 32 entries, 8 threads each.
constexpr int kEntries = 32;

template <typename T>
__global__ void sum_slices(const T* __restrict__ partials, int slices, Segments<T> segments) {
  constexpr int kRows = kThreads / kEntries;
  T* sums = shared_memory<T>();
  const int column = threadIdx.x % kEntries, row = threadIdx.x / kEntries;
  const int entry = blockIdx.x * kEntries + column, entries = segments.size();
  T sum = 0;
  if (entry < entries) {
#pragma unroll 4
    for (int slice = row; slice < slices; slice += kRows) sum += partials[static_cast<size_t>(slice) * entries + entry];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (row != 0 || entry >= entries) return;
  for (int other = 1; other < kRows; ++other) sum += sums[other * kEntries + column];
  int segment = 0;
  while (entry >= segments.first[segment + 1]) ++segment;
  segments.to[segment][entry - segments.first[segment]] += sum;
}

}  // namespace

template <typename T>
void add_partial_sums(const T* partials, int slices, const Segments<T>& segments, cudaStream_t stream) {
  if (segments.size() == 0) return;
  launch(sum_slices<T>, dim3(ceil_div(segments.size(), kEntries)), kThreads * sizeof(T), stream, partials, slices,
         segments);
}

template void add_partial_sums<float>(const float*, int, const Segments<float>&, cudaStream_t);
template void add_partial_sums<double>(const double*, int, const Segments<double>&, cudaStream_t);

}  // namespace caffe_layers
