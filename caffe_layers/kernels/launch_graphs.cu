#include <algorithm>
#include <utility>

#include "caffe_layers/kernels/launch_graphs.hpp"

namespace caffe_layers {

namespace {

/// Lists that are remembered. In-place layers exchange two memories in every pass, which makes two lists in turn; the
/// others are for what is between the turns, such as a last batch of another size.
constexpr size_t kMaxSeen = 4;

}  // namespace

LaunchGraphs::~LaunchGraphs() {
  for (const Seen& seen : seen_) {
    if (seen.graph) cudaGraphExecDestroy(seen.graph);
  }
}

int LaunchGraphs::graphs() const {
  return static_cast<int>(std::count_if(seen_.begin(), seen_.end(), [](const Seen& seen) { return seen.graph; }));
}

void LaunchGraphs::begin() {
  current_.clear();
  kept_launches = &current_;
}

cudaError_t LaunchGraphs::end() {
  kept_launches = nullptr;
  if (current_.empty()) return cudaSuccess;  // nothing came, or it is started already
  Seen* seen = find_current();
  if (!seen) {
    const cudaError_t error = current_.start();
    remember_current();
    return error;
  }
  if (!seen->graph) {
    const cudaError_t error = seen->launches.make_graph(&seen->graph);
    if (error != cudaSuccess) return error;
  }
  return cudaGraphLaunch(seen->graph, current_.stream());
}

LaunchGraphs::Seen* LaunchGraphs::find_current() {
  const auto same = [this](const Seen& seen) { return seen.launches == current_; };
  const auto found = std::find_if(seen_.begin(), seen_.end(), same);
  return found == seen_.end() ? nullptr : &*found;
}

void LaunchGraphs::remember_current() {
  if (seen_.size() < kMaxSeen) {
    seen_.emplace_back();
    std::swap(seen_.back().launches, current_);
    return;
  }
  Seen& oldest = seen_[oldest_];
  oldest_ = (oldest_ + 1) % kMaxSeen;
  if (oldest.graph) cudaGraphExecDestroy(oldest.graph);
  oldest.graph = nullptr;
  std::swap(oldest.launches, current_);
}

}  // namespace caffe_layers
