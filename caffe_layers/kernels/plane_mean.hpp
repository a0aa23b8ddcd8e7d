#pragma once

namespace caffe_layers {

/// means[p] = mean of the `size` values of plane p, for `planes` planes one after the other.
template <typename T>
void plane_means(const T* values, int planes, int size, T* means);

/// Its gradient: every value of plane p gets mean_diffs[p] / size.
template <typename T>
void plane_means_backward(const T* mean_diffs, int planes, int size, T* diffs);

}  // namespace caffe_layers
