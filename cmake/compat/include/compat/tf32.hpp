// Convolutions and matrix products on the GPU are FP32. CAFFE_TF32=1 in the environment allows TF32 in them (operands
// rounded to 10 bits of mantissa; NVIDIA Ampere and newer). cuBLAS has to be told to use it, cuDNN since version 8 not
// to.
#ifndef COMPAT_TF32_HPP_
#define COMPAT_TF32_HPP_

#include <cstdlib>
#include <cstring>

#include "glog/logging.h"

inline bool CompatTf32() {
  const char* value = std::getenv("CAFFE_TF32");
  if (value == nullptr || std::strcmp(value, "0") == 0) return false;
  if (std::strcmp(value, "1") != 0) {
    LOG(FATAL) << "CAFFE_TF32=" << value << " is not known: 1 allows TF32, 0 (the default) computes in FP32";
  }
  return true;
}

#ifndef CPU_ONLY
#include <cublas_v2.h>

inline cublasStatus_t CompatCublasCreate(cublasHandle_t* handle) {
  const cublasStatus_t status = cublasCreate(handle);
  if (status != CUBLAS_STATUS_SUCCESS || !CompatTf32()) return status;
  return cublasSetMathMode(*handle, CUBLAS_TF32_TENSOR_OP_MATH);
}

#undef cublasCreate
#define cublasCreate CompatCublasCreate
#endif  // CPU_ONLY

#ifdef USE_CUDNN
#include <cudnn.h>

inline cudnnStatus_t CompatSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t descriptor, int pad_h, int pad_w,
                                                      int stride_h, int stride_w, int dilation_h, int dilation_w,
                                                      cudnnConvolutionMode_t mode, cudnnDataType_t type) {
  const cudnnStatus_t status =
      cudnnSetConvolution2dDescriptor(descriptor, pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, mode, type);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  return cudnnSetConvolutionMathType(descriptor, CompatTf32() ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH);
}

#define cudnnSetConvolution2dDescriptor CompatSetConvolution2dDescriptor
#endif  // USE_CUDNN
#endif  // COMPAT_TF32_HPP_
