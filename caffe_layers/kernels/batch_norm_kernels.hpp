#pragma once

#include <vector>

#include "caffe_layers/kernels/batch_norm_operands.hpp"

namespace caffe_layers {

/// One implementation on the CPU. Results do not depend on the number of threads.
template <typename T>
struct BatchNormKernel {
  const char* name;
  /// Does this CPU have the instruction set?
  bool (*runs_here)();
  void (*forward)(const BatchNormForward<T>& pass);
  void (*backward)(const BatchNormBackward<T>& pass);
};

/// All implementations compiled in, fastest first, "reference" last. Dispatch, tests and benchmarks all read this
/// table.
template <typename T>
const std::vector<BatchNormKernel<T>>& batch_norm_kernels();

/// The first entry that runs here.
template <typename T>
const BatchNormKernel<T>& pick_batch_norm_kernel();

/// The plain loops, last of the table.
template <typename T>
const BatchNormKernel<T>& reference_batch_norm_kernel();

}  // namespace caffe_layers
