#include "caffe_layers/kernels/plane_mean.hpp"

#include <algorithm>
#include <cstddef>

namespace caffe_layers {
namespace {
constexpr std::size_t kWorthThreads = 1 << 14;  // values for which waking threads pays
}

template <typename T>
void plane_means(const T* values, int planes, int size, T* means) {
#pragma omp parallel for schedule(static) if (std::size_t(planes) * size >= kWorthThreads)
  for (int p = 0; p < planes; ++p) {
    const T* plane = values + std::size_t(p) * size;
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < size; ++i) sum += plane[i];
    means[p] = sum / size;
  }
}

template <typename T>
void plane_means_backward(const T* mean_diffs, int planes, int size, T* diffs) {
#pragma omp parallel for schedule(static) if (std::size_t(planes) * size >= kWorthThreads)
  for (int p = 0; p < planes; ++p) std::fill_n(diffs + std::size_t(p) * size, size, mean_diffs[p] / size);
}

template void plane_means(const float*, int, int, float*);
template void plane_means(const double*, int, int, double*);
template void plane_means_backward(const float*, int, int, float*);
template void plane_means_backward(const double*, int, int, double*);

}  // namespace caffe_layers
