#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "caffe/net.hpp"
#include "caffe/solver.hpp"

namespace caffe {

/// First and last layer of every run of two or more layers in a row, all of them ours, that read nothing straight from
/// a data layer (whose memory changes with every batch) and have no loss (which Layer::Forward takes from the top at
/// once).
template <typename Dtype>
vector<std::pair<int, int>> RunsOfOurLayers(const Net<Dtype>& net);

#ifndef CPU_ONLY
/**
 * @brief Lets a solver start its training net's runs of our layers as CUDA graphs, two per run: forward and backward.
 *
 * Data, first convolution, classifier, loss and update are launched as ever, in between. It is at work inside
 * Solver::Step only; not with debug_info, and not while anybody else has callbacks in the net (NCCL's
 * layer_wise_reduce), since both look at a layer's results before the run ends. Solver and net outlive it.
 */
template <typename Dtype>
class StepGraphs : public Solver<Dtype>::Callback {
 public:
  explicit StepGraphs(Solver<Dtype>* solver);
  ~StepGraphs();

 protected:
  void on_start() override;
  void on_gradients_ready() override;

 private:
  struct Run;
  class Hook;
  std::unique_ptr<Hook> MakeHook(std::function<void(Run*, int)> at_layer);

  const Solver<Dtype>* solver_;
  Net<Dtype>* net_;
  bool active_ = false;
  vector<std::unique_ptr<Run>> runs_;
  vector<std::unique_ptr<Hook>> hooks_;
};
#endif

}  // namespace caffe
