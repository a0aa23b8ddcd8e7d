#include <algorithm>

#include "caffe_layers/kernels/launch_list.hpp"

namespace caffe_layers {

namespace {

bool same(const dim3& a, const dim3& b) { return a.x == b.x && a.y == b.y && a.z == b.z; }

}  // namespace

void LaunchList::clear() {
  launches_.clear();
  offset_.clear();
  bytes_.clear();
}

bool LaunchList::operator==(const LaunchList& other) const {
  const auto same_launch = [](const Launch& a, const Launch& b) {
    return a.kernel == b.kernel && same(a.config.gridDim, b.config.gridDim) &&
           same(a.config.blockDim, b.config.blockDim) && a.config.dynamicSmemBytes == b.config.dynamicSmemBytes &&
           a.config.stream == b.config.stream;
  };
  return bytes_ == other.bytes_ &&
         std::equal(launches_.begin(), launches_.end(), other.launches_.begin(), other.launches_.end(), same_launch);
}

std::vector<void*> LaunchList::arguments(size_t launch) const {
  const size_t end = launch + 1 < launches_.size() ? launches_[launch + 1].first_argument : offset_.size();
  std::vector<void*> addresses;
  for (size_t i = launches_[launch].first_argument; i < end; ++i) {
    addresses.push_back(const_cast<unsigned char*>(bytes_.data()) + offset_[i]);
  }
  return addresses;
}

cudaError_t LaunchList::start() const {
  for (size_t i = 0; i < launches_.size(); ++i) {
    const cudaError_t error = cudaLaunchKernelExC(&launches_[i].config, launches_[i].kernel, arguments(i).data());
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t LaunchList::make_graph(cudaGraphExec_t* graph) const {
  cudaGraph_t plan;
  cudaError_t error = cudaGraphCreate(&plan, 0);
  if (error != cudaSuccess) return error;
  cudaGraphNode_t node = nullptr;
  for (size_t i = 0; i < launches_.size() && error == cudaSuccess; ++i) {
    std::vector<void*> addresses = arguments(i);
    const cudaLaunchConfig_t& config = launches_[i].config;
    cudaKernelNodeParams params = {};
    params.func = const_cast<void*>(launches_[i].kernel);
    params.gridDim = config.gridDim;
    params.blockDim = config.blockDim;
    params.sharedMemBytes = static_cast<unsigned>(config.dynamicSmemBytes);
    params.kernelParams = addresses.data();
    const cudaGraphNode_t before = node;
    error = cudaGraphAddKernelNode(&node, plan, &before, i > 0 ? 1 : 0, &params);
  }
  if (error == cudaSuccess) error = cudaGraphInstantiate(graph, plan, 0);
  cudaGraphDestroy(plan);
  return error;
}

cudaError_t start_kept_launches() {
  LaunchList* kept = kept_launches;
  if (!kept) return cudaSuccess;
  kept_launches = nullptr;
  const cudaError_t error = kept->start();
  kept->clear();
  return error;
}

}  // namespace caffe_layers
