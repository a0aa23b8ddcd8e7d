// Caffe's common.cpp with cudaDeviceProp as it was before CUDA 13, and cuBLAS in FP32 unless CAFFE_TF32=1.
#include "caffe/common.hpp"
#include "compat/cuda_device_prop.hpp"
#include "compat/tf32.hpp"

#include "src/caffe/common.cpp"
