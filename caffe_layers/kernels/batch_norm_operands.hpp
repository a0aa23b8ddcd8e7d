#pragma once

namespace caffe_layers {

/// num x channels x spatial values, contiguous: images, channels, pixels of one channel of one image.
struct BatchNormShape {
  int num, channels, spatial;
};

/// y = relu(gamma * (x - mean) / sqrt(variance + eps) + beta + residual); every tensor of one forward pass.
/// Plain pointers: this header is also read by files compiled for one instruction set.
template <typename T>
struct BatchNormForward {
  BatchNormShape shape;
  const T* x;
  const T* residual;  // null: none
  const T *gamma, *beta;
  T eps;
  bool relu;
  /// True: mean and (biased) variance over images and pixels are taken from x and written; false: they are read.
  bool batch_statistics;
  T *mean, *variance;
  T* y;  // may be x or residual
};

/// The gradients of the above, for the same x, mean and variance. Null gradients are not asked for.
template <typename T>
struct BatchNormBackward {
  BatchNormShape shape;
  const T* x;
  const T* y;  // read only where relu follows a residual: elsewhere y's sign comes from x
  bool residual;
  const T *gamma, *beta;
  T eps;
  bool relu;
  bool batch_statistics;
  const T *mean, *variance;
  const T* y_diff;
  T* x_diff;                  // overwritten; may be y_diff
  T* residual_diff;           // overwritten
  T *gamma_diff, *beta_diff;  // added to
};

}  // namespace caffe_layers
