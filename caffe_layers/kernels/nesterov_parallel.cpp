#include <omp.h>

#include <algorithm>

#include "caffe_layers/kernels/nesterov_kernels.hpp"

namespace caffe_layers {
namespace {

/// Below that many values, starting threads costs about what they save.
constexpr std::size_t kWorthThreads = 65536;

/// Values begin .. end - 1 of one array. Without aliases the compiler makes vectors of it.
template <typename T, bool L1>
void update(const ParameterArray<T>& p, std::size_t begin, std::size_t end, const NesterovStep<T>& step) {
  T* __restrict__ data = p.data;
  T* __restrict__ history = p.history;
  const T* __restrict__ gradient = p.gradient;
  const T momentum = step.momentum, over = 1 + momentum, scale = step.gradient_scale, rate = p.rate, decay = p.decay;
  for (std::size_t i = begin; i < end; ++i) {
    const T w = data[i], before = history[i];
    const T g = scale * gradient[i] + decay * (L1 ? T(w > 0) - T(w < 0) : w);
    const T v = momentum * before + rate * g;
    history[i] = v;
    data[i] = w - (over * v - momentum * before);
  }
}

}  // namespace

// Every thread takes an equal part of all arrays laid end to end, however unequal they are.
template <typename T>
void nesterov_update_parallel(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step) {
  std::size_t total = 0;
  for (int a = 0; a < arrays; ++a) total += parameters[a].count;
#pragma omp parallel if (total >= kWorthThreads)
  {
    const std::size_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const std::size_t begin = total * thread / threads, end = total * (thread + 1) / threads;
    std::size_t first = 0;
    for (int a = 0; a < arrays && first < end; ++a) {
      const ParameterArray<T>& p = parameters[a];
      const std::size_t from = std::max(begin, first), to = std::min(end, first + p.count);
      if (from < to) (step.l1 ? update<T, true> : update<T, false>)(p, from - first, to - first, step);
      first += p.count;
    }
  }
}

template void nesterov_update_parallel<float>(const ParameterArray<float>*, int, const NesterovStep<float>&);
template void nesterov_update_parallel<double>(const ParameterArray<double>*, int, const NesterovStep<double>&);

}  // namespace caffe_layers
