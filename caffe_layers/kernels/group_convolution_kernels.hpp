#pragma once

#include <cstddef>
#include <vector>

#include "caffe_layers/kernels/group_convolution_chain.hpp"

namespace caffe_layers {

/// Parameters of a chain, one entry per stage; bias[s] is null where stage s has none.
template <typename T>
struct ChainParameters {
  std::vector<const T*> weight, bias;
};

/// Where forward puts its result, and the residual (of the same shape, may be null) that it adds.
template <typename T>
struct ChainTop {
  T* data;
  const T* residual;
  ChainTop(T* data, const T* residual = nullptr) : data(data), residual(residual) {}  // NOLINT: most have no residual
};

/// Where backward puts its results; a null pointer means not asked for. Bottom gradients are overwritten, parameter
/// gradients added to.
template <typename T>
struct ChainGradients {
  T* bottom = nullptr;
  const T* skip = nullptr;   ///< added to the bottom's gradient; on the CPU it may be `bottom` itself
  bool bottom_relu = false;  ///< the bottom's gradient, with what is added, is zero where the bottom is not positive
  std::vector<T*> weight, bias;
};

/// One implementation of equation 4 on the CPU.
template <typename T>
struct GroupConvolutionKernel {
  const char* name;
  /// Can this CPU run it (instruction set), and does it handle this chain?
  bool (*runs_here)();
  bool (*supports)(const GroupConvolutionChain& chain);
  /// Is it then faster than the entries behind it?
  bool (*pays)(const GroupConvolutionChain& chain);
  /// Scratch memory that forward and backward need, in bytes, for the current number of threads.
  size_t (*workspace_bytes)(const GroupConvolutionChain& chain, bool backward);
  void (*forward)(const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters,
                  ChainTop<T> top, void* workspace);
  /// From the gradient in front of residual and ReLU; see gradient_before_relu.
  void (*backward)(const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters,
                   const T* top_diff, const ChainGradients<T>& gradients, void* workspace);
};

/// diff[i] = y[i] > 0 ? y_diff[i] : 0: back through a ReLU that made y. diff may be y_diff.
template <typename T>
void gradient_before_relu(size_t count, const T* y, const T* y_diff, T* diff) {
  for (size_t i = 0; i < count; ++i) diff[i] = y[i] > 0 ? y_diff[i] : T(0);
}

/// All implementations compiled in, fastest first, "reference" last. Dispatch, tests and benchmarks all read this
/// table.
template <typename T>
const std::vector<GroupConvolutionKernel<T>>& group_convolution_kernels();

/// The first entry that runs here, supports the chain and pays.
template <typename T>
const GroupConvolutionKernel<T>& pick_group_convolution_kernel(const GroupConvolutionChain& chain);

}  // namespace caffe_layers
