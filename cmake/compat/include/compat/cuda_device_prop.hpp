// CUDA 13 dropped three members of cudaDeviceProp that Caffe prints. After this header the name cudaDeviceProp means a
// struct that has them, and cudaGetDeviceProperties fills it.
#ifndef COMPAT_CUDA_DEVICE_PROP_HPP_
#define COMPAT_CUDA_DEVICE_PROP_HPP_
#ifndef CPU_ONLY

#include <cuda_runtime.h>

#if CUDART_VERSION >= 13000

struct CompatDeviceProp : cudaDeviceProp {
  int clockRate;
  int deviceOverlap;
  int kernelExecTimeoutEnabled;
};

inline cudaError_t CompatGetDeviceProperties(CompatDeviceProp* prop, int device) {
  cudaDeviceGetAttribute(&prop->clockRate, cudaDevAttrClockRate, device);
  cudaDeviceGetAttribute(&prop->deviceOverlap, cudaDevAttrGpuOverlap, device);
  cudaDeviceGetAttribute(&prop->kernelExecTimeoutEnabled, cudaDevAttrKernelExecTimeout, device);
  return cudaGetDeviceProperties(prop, device);
}

#define cudaDeviceProp CompatDeviceProp
#define cudaGetDeviceProperties CompatGetDeviceProperties

#endif  // CUDART_VERSION
#endif  // CPU_ONLY
#endif  // COMPAT_CUDA_DEVICE_PROP_HPP_
