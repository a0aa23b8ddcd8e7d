// Caffe's test_platform.cpp with cudaDeviceProp as it was before CUDA 13. The file declares a global of that type; the
// macro makes it a function that asks the device.
#include "caffe/common.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "compat/cuda_device_prop.hpp"

#if !defined(CPU_ONLY) && CUDART_VERSION >= 13000
#define CAFFE_TEST_CUDA_PROP CurrentDeviceProp()
#endif

#include "src/caffe/test/test_platform.cpp"

#ifdef CAFFE_TEST_CUDA_PROP
namespace caffe {
cudaDeviceProp CurrentDeviceProp() {
  int device = 0;
  cudaDeviceProp prop;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaGetDeviceProperties(&prop, device));
  return prop;
}
}  // namespace caffe
#endif
