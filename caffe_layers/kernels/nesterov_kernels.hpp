#pragma once

#include <cstddef>
#include <vector>

namespace caffe_layers {

/// One parameter blob of a net: `count` values, their gradient, and the momentum that the solver keeps for them.
template <typename T>
struct ParameterArray {
  T* data;
  const T* gradient;
  T* history;
  std::size_t count;
  /// Learning rate and weight decay, the blob's own multipliers included.
  T rate, decay;
};

/// What all parameters of one update share.
template <typename T>
struct NesterovStep {
  T momentum;
  /// Gradients are multiplied by it: 1 / iter_size.
  T gradient_scale;
  /// Weight decay's gradient is the sign of a value (L1) instead of the value (L2).
  bool l1;
};

/// One implementation on the CPU of an update of `arrays` arrays, element by element:
///   g = gradient_scale * gradient + decay * (data or its sign)
///   v = momentum * history + rate * g
///   data -= (1 + momentum) * v - momentum * history;  history = v
/// which is Caffe's NesterovSolver in one pass; gradients are only read. Bits do not depend on the number of threads.
template <typename T>
struct NesterovKernel {
  const char* name;
  void (*update)(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step);
};

/// Fastest first, "reference" last. Dispatch and tests read this table.
template <typename T>
const std::vector<NesterovKernel<T>>& nesterov_kernels();

// The functions behind the table.
template <typename T>
void nesterov_update_parallel(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step);
template <typename T>
void nesterov_update_reference(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step);

}  // namespace caffe_layers
