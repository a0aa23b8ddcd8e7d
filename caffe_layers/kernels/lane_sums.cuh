#pragma once

#include "caffe_layers/kernels/cuda_launch.cuh"

// Sums over a warp or a block, always in the same order.

namespace caffe_layers {

constexpr int kLanes = 32;
constexpr int kWarps = kThreads / kLanes;
constexpr unsigned kAllLanes = 0xffffffffu;

/// Sums 2 * HALF values over HALF lanes of a warp; lane l keeps sums 2 * l and 2 * l + 1, in values[0] and values[1].
template <int HALF = kLanes, typename T>
__device__ __forceinline__ void scatter_sums_over_lanes(T* values) {
  constexpr int kMask = HALF / 2;
  const bool upper = threadIdx.x & kMask;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const T sent = upper ? values[i] : values[i + HALF];
    const T kept = upper ? values[i + HALF] : values[i];
    values[i] = kept + __shfl_xor_sync(kAllLanes, sent, kMask);
  }
  if constexpr (HALF > 2) scatter_sums_over_lanes<HALF / 2>(values);
}

/// Sums COUNT values (a power of two, 64 at most) over a warp, and hands each to take(i, sum) in one lane.
template <int COUNT, typename T, typename Take>
__device__ __forceinline__ void take_sums_over_lanes(T (&values)[COUNT], const Take& take) {
  constexpr int kHalf = COUNT / 2;
  scatter_sums_over_lanes<kHalf>(values);
#pragma unroll
  for (int mask = kHalf; mask < kLanes; mask *= 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) values[i] += __shfl_xor_sync(kAllLanes, values[i], mask);
  }
  const int lane = threadIdx.x % kLanes;
  if (lane >= kHalf) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) take(2 * lane + i, values[i]);
}

/// Sum over a warp, in all of its lanes.
template <typename T>
__device__ __forceinline__ T sum_over_lanes(T value) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

/// values[warp * count + i] summed over the warps.
template <typename T>
__device__ __forceinline__ T sum_over_warps(const T* values, int count, int i) {
  T sum = values[i];
  for (int warp = 1; warp < kWarps; ++warp) sum += values[warp * count + i];
  return sum;
}

/// Sum over the block, in thread 0. `scratch`: kWarps values in shared memory.
template <typename T>
__device__ T block_sum(T value, T* scratch) {
  value = sum_over_lanes(value);
  __syncthreads();  // the scratch of the sum before is read
  if (threadIdx.x % kLanes == 0) scratch[threadIdx.x / kLanes] = value;
  __syncthreads();
  return threadIdx.x == 0 ? sum_over_warps(scratch, 1, 0) : value;
}

}  // namespace caffe_layers
