#pragma once

#include <vector>

#include "caffe_layers/kernels/launch_list.hpp"

namespace caffe_layers {

/// The launches of a part of the program that runs again and again, as CUDA graphs: between begin() and end(), launch()
/// of cuda_launch.cuh only keeps them; end() starts all at once. A graph is made when a list of launches comes a second
/// time with the very same arguments, so that anything new (another shape, other memory) is started in the usual way
/// and nothing has to be told of it. What lies between may use the device in no other way, but for memory that none of
/// the kept launches writes. No stream is captured: Caffe's own, the legacy default stream, cannot be.
class LaunchGraphs {
 public:
  LaunchGraphs() = default;
  LaunchGraphs(const LaunchGraphs&) = delete;
  ~LaunchGraphs();

  void begin();
  cudaError_t end();
  /// That exist at present, for tests and logs.
  int graphs() const;

 private:
  struct Seen {
    LaunchList launches;
    cudaGraphExec_t graph = nullptr;
  };
  Seen* find_current();
  void remember_current();

  LaunchList current_;
  std::vector<Seen> seen_;
  size_t oldest_ = 0;
};

}  // namespace caffe_layers
