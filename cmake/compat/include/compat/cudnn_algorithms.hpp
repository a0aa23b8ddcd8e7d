// cuDNN 8 dropped the queries for the best convolution algorithm within a workspace limit. Here they are again, under
// their old names, over the `_v7` queries that list all algorithms, best first.
#ifndef COMPAT_CUDNN_ALGORITHMS_HPP_
#define COMPAT_CUDNN_ALGORITHMS_HPP_
#ifdef USE_CUDNN

#include <cudnn.h>

#include <cstddef>

#if CUDNN_MAJOR >= 8

enum CompatWorkspacePreference {
  CUDNN_CONVOLUTION_FWD_SPECIFY_WORKSPACE_LIMIT,
  CUDNN_CONVOLUTION_BWD_FILTER_SPECIFY_WORKSPACE_LIMIT,
  CUDNN_CONVOLUTION_BWD_DATA_SPECIFY_WORKSPACE_LIMIT
};

// The first of the listed algorithms that works and fits the limit (bytes).
template <typename Perf, typename Algo>
cudnnStatus_t CompatPickAlgorithm(const Perf* listed, int count, size_t limit, Algo* algo) {
  for (int i = 0; i < count; ++i) {
    if (listed[i].status == CUDNN_STATUS_SUCCESS && listed[i].memory <= limit) {
      *algo = listed[i].algo;
      return CUDNN_STATUS_SUCCESS;
    }
  }
  return CUDNN_STATUS_NOT_SUPPORTED;
}

inline cudnnStatus_t cudnnGetConvolutionForwardAlgorithm(cudnnHandle_t handle, cudnnTensorDescriptor_t x,
                                                         cudnnFilterDescriptor_t w, cudnnConvolutionDescriptor_t conv,
                                                         cudnnTensorDescriptor_t y, CompatWorkspacePreference,
                                                         size_t limit, cudnnConvolutionFwdAlgo_t* algo) {
  cudnnConvolutionFwdAlgoPerf_t listed[CUDNN_CONVOLUTION_FWD_ALGO_COUNT];
  int count = 0;
  const cudnnStatus_t status =
      cudnnGetConvolutionForwardAlgorithm_v7(handle, x, w, conv, y, CUDNN_CONVOLUTION_FWD_ALGO_COUNT, &count, listed);
  return status == CUDNN_STATUS_SUCCESS ? CompatPickAlgorithm(listed, count, limit, algo) : status;
}

inline cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm(cudnnHandle_t handle, cudnnTensorDescriptor_t x,
                                                                cudnnTensorDescriptor_t dy,
                                                                cudnnConvolutionDescriptor_t conv,
                                                                cudnnFilterDescriptor_t dw, CompatWorkspacePreference,
                                                                size_t limit, cudnnConvolutionBwdFilterAlgo_t* algo) {
  cudnnConvolutionBwdFilterAlgoPerf_t listed[CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT];
  int count = 0;
  const cudnnStatus_t status = cudnnGetConvolutionBackwardFilterAlgorithm_v7(
      handle, x, dy, conv, dw, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT, &count, listed);
  return status == CUDNN_STATUS_SUCCESS ? CompatPickAlgorithm(listed, count, limit, algo) : status;
}

inline cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm(cudnnHandle_t handle, cudnnFilterDescriptor_t w,
                                                              cudnnTensorDescriptor_t dy,
                                                              cudnnConvolutionDescriptor_t conv,
                                                              cudnnTensorDescriptor_t dx, CompatWorkspacePreference,
                                                              size_t limit, cudnnConvolutionBwdDataAlgo_t* algo) {
  cudnnConvolutionBwdDataAlgoPerf_t listed[CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT];
  int count = 0;
  const cudnnStatus_t status = cudnnGetConvolutionBackwardDataAlgorithm_v7(
      handle, w, dy, conv, dx, CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT, &count, listed);
  return status == CUDNN_STATUS_SUCCESS ? CompatPickAlgorithm(listed, count, limit, algo) : status;
}

#endif  // CUDNN_MAJOR
#endif  // USE_CUDNN
#endif  // COMPAT_CUDNN_ALGORITHMS_HPP_
