// Has this machine a GPU (and a driver for it)? False in a build without CUDA.
#ifndef COMPAT_GPU_PRESENT_HPP_
#define COMPAT_GPU_PRESENT_HPP_

#ifdef CPU_ONLY
inline bool CompatGpuPresent() { return false; }
#else
#include <cuda_runtime.h>

inline bool CompatGpuPresent() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
#endif  // CPU_ONLY
#endif  // COMPAT_GPU_PRESENT_HPP_
