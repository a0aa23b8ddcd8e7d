#include "caffe_layers/kernels/nesterov_kernels.hpp"

namespace caffe_layers {

template <typename T>
void nesterov_update_reference(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step) {
  for (int a = 0; a < arrays; ++a) {
    const ParameterArray<T>& p = parameters[a];
    for (std::size_t i = 0; i < p.count; ++i) {
      const T sign = T((p.data[i] > 0) - (p.data[i] < 0));
      const T g = step.gradient_scale * p.gradient[i] + p.decay * (step.l1 ? sign : p.data[i]);
      const T before = p.history[i];
      p.history[i] = step.momentum * before + p.rate * g;
      p.data[i] -= (1 + step.momentum) * p.history[i] - step.momentum * before;
    }
  }
}

template void nesterov_update_reference<float>(const ParameterArray<float>*, int, const NesterovStep<float>&);
template void nesterov_update_reference<double>(const ParameterArray<double>*, int, const NesterovStep<double>&);

}  // namespace caffe_layers
