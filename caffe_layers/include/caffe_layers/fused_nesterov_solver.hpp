#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caffe/sgd_solvers.hpp"
#include "caffe_layers/kernels/nesterov_kernels.hpp"
#include "caffe_layers/step_graphs.hpp"

namespace caffe {

/**
 * @brief Caffe's Nesterov solver (type "Nesterov") with all parameters updated in one pass: on the CPU by all threads,
 * on a GPU by one launch for about a hundred blobs where the stock solver needs three or more for each.
 *
 * solver.prototxt is the stock solver's with type: "FusedNesterov"; every field means the same, iter_size,
 * clip_gradients and regularization_type L1 included, and weights agree with the stock solver's up to rounding.
 * Snapshots are interchangeable: a .solverstate does not name its solver.
 *
 * cuda_graphs: true, on a GPU: see StepGraphs. Ignored on the CPU.
 *
 * Two differences that training does not see: after a step, diffs hold the gradients instead of the update; and blobs
 * with lr_mult 0 that have no momentum (batch norm's statistics) are left alone instead of having zeros subtracted.
 */
template <typename Dtype>
class FusedNesterovSolver : public NesterovSolver<Dtype> {
 public:
  explicit FusedNesterovSolver(const SolverParameter& param) : NesterovSolver<Dtype>(param) { SetUp(); }
  explicit FusedNesterovSolver(const string& param_file) : NesterovSolver<Dtype>(param_file) { SetUp(); }
  const char* type() const override { return "FusedNesterov"; }
  void ApplyUpdate() override;

 protected:
  void RestoreSolverStateFromHDF5(const string& state_file) override;
  void RestoreSolverStateFromBinaryProto(const string& state_file) override;

 private:
  void SetUp();
  void FindMoving();
  caffe_layers::ParameterArray<Dtype> Parameter(int param_id, Dtype rate) const;

  vector<int> moving_;                                      // learnable_params that an update may change
  vector<caffe_layers::ParameterArray<Dtype>> parameters_;  // theirs, gathered anew for every update
#ifndef CPU_ONLY
  std::unique_ptr<StepGraphs<Dtype>> graphs_;
#endif
};

}  // namespace caffe
