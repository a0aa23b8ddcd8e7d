// The definition in plain loops: one thread, sums in double.
#include <cmath>
#include <cstddef>

#include "caffe_layers/kernels/batch_norm_entries.hpp"

namespace caffe_layers {
namespace {

size_t at(const BatchNormShape& shape, int n, int c, int s) {
  return (size_t(n) * shape.channels + c) * shape.spatial + s;
}

/// Calls f(i) for the index i of every value of channel c.
template <typename F>
void for_channel(const BatchNormShape& shape, int c, F f) {
  for (int n = 0; n < shape.num; ++n)
    for (int s = 0; s < shape.spatial; ++s) f(at(shape, n, c, s));
}

template <typename T>
void forward(const BatchNormForward<T>& p) {
  const double m = double(p.shape.num) * p.shape.spatial;
  for (int c = 0; c < p.shape.channels; ++c) {
    if (p.batch_statistics) {
      double sum = 0, squares = 0;
      for_channel(p.shape, c, [&](size_t i) { sum += p.x[i]; });
      const double mean = sum / m;
      for_channel(p.shape, c, [&](size_t i) { squares += (p.x[i] - mean) * (p.x[i] - mean); });
      p.mean[c] = T(mean);
      p.variance[c] = T(squares / m);
    }
    const double inverse_std = 1 / std::sqrt(double(p.variance[c]) + p.eps);
    for_channel(p.shape, c, [&](size_t i) {
      double y = p.gamma[c] * (p.x[i] - double(p.mean[c])) * inverse_std + p.beta[c];
      if (p.residual) y += p.residual[i];
      p.y[i] = T(p.relu && y < 0 ? 0 : y);
    });
  }
}

template <typename T>
void backward(const BatchNormBackward<T>& p) {
  const double m = double(p.shape.num) * p.shape.spatial;
  for (int c = 0; c < p.shape.channels; ++c) {
    const double inverse_std = 1 / std::sqrt(double(p.variance[c]) + p.eps);
    const auto normalised = [&](size_t i) { return (p.x[i] - double(p.mean[c])) * inverse_std; };
    // The gradient before the ReLU.
    const auto gradient = [&](size_t i) {
      const double y = p.residual ? double(p.relu ? p.y[i] : T(0)) : p.gamma[c] * normalised(i) + p.beta[c];
      if (p.relu && !(y > 0)) return 0.0;
      return double(p.y_diff[i]);
    };
    double sum = 0, products = 0;
    for_channel(p.shape, c, [&](size_t i) {
      sum += gradient(i);
      products += gradient(i) * normalised(i);
    });
    if (p.gamma_diff) p.gamma_diff[c] += T(products);
    if (p.beta_diff) p.beta_diff[c] += T(sum);
    const double mean_gradient = p.batch_statistics ? sum / m : 0, mean_product = p.batch_statistics ? products / m : 0;
    for_channel(p.shape, c, [&](size_t i) {
      const double g = gradient(i);
      if (p.residual_diff) p.residual_diff[i] = T(g);
      if (p.x_diff) p.x_diff[i] = T(p.gamma[c] * inverse_std * (g - mean_gradient - normalised(i) * mean_product));
    });
  }
}

}  // namespace

void batch_norm_forward_reference(const BatchNormForward<float>& pass) { forward(pass); }
void batch_norm_forward_reference(const BatchNormForward<double>& pass) { forward(pass); }
void batch_norm_backward_reference(const BatchNormBackward<float>& pass) { backward(pass); }
void batch_norm_backward_reference(const BatchNormBackward<double>& pass) { backward(pass); }

}  // namespace caffe_layers
