#pragma once

#include "caffe/blob.hpp"
#include "caffe/common.hpp"

namespace caffe {

// A blob's values on the device that Caffe::mode() names, brought there if need be.

inline bool on_gpu() { return Caffe::mode() == Caffe::GPU; }

template <typename Dtype>
const Dtype* device_data(const Blob<Dtype>& blob) {
  return on_gpu() ? blob.gpu_data() : blob.cpu_data();
}

template <typename Dtype>
Dtype* mutable_device_data(Blob<Dtype>* blob) {
  return on_gpu() ? blob->mutable_gpu_data() : blob->mutable_cpu_data();
}

template <typename Dtype>
const Dtype* device_diff(const Blob<Dtype>& blob) {
  return on_gpu() ? blob.gpu_diff() : blob.cpu_diff();
}

template <typename Dtype>
Dtype* mutable_device_diff(Blob<Dtype>* blob) {
  return on_gpu() ? blob->mutable_gpu_diff() : blob->mutable_cpu_diff();
}

/// True if `blob` may get the memory of `other`'s gradient in place of its own: both are of one size (a blob may rely
/// on more than count()), and nothing else uses its own. Layers that only rename values (Reshape, Concat of one,
/// Parameter) have given their top their bottom's, and do not look whether it still has it.
template <typename Dtype>
bool can_share_diff(const Blob<Dtype>& blob, const Blob<Dtype>& other) {
  const auto& own = blob.diff();
  return own->size() == other.diff()->size() && (own == other.diff() || own.use_count() == 1);
}

}  // namespace caffe
