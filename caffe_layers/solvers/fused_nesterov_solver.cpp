#include "caffe_layers/fused_nesterov_solver.hpp"

#include <algorithm>

#ifndef CPU_ONLY
#include "caffe_layers/kernels/nesterov_cuda.hpp"
#endif

namespace caffe {

template <typename Dtype>
void FusedNesterovSolver<Dtype>::SetUp() {
  const string& type = this->param_.regularization_type();
  CHECK(type == "L1" || type == "L2") << "FusedNesterov solver: regularization_type is \"" << type
                                      << "\": must be \"L1\" or \"L2\"";
  FindMoving();
#ifndef CPU_ONLY
  if (this->param_.cuda_graphs() && Caffe::mode() == Caffe::GPU) graphs_.reset(new StepGraphs<Dtype>(this));
#endif
}

template <typename Dtype>
void FusedNesterovSolver<Dtype>::FindMoving() {
  moving_.clear();
  for (size_t i = 0; i < this->history_.size(); ++i) {
    const Blob<Dtype>& history = *this->history_[i];
    const bool untouched = history.data()->head() == SyncedMemory::UNINITIALIZED;
    const auto has_momentum = [&history] {
      const Dtype* values = history.cpu_data();
      return std::any_of(values, values + history.count(), [](Dtype value) { return value != 0; });
    };
    if (this->net_->params_lr()[i] != 0 || (!untouched && has_momentum())) moving_.push_back(i);
  }
}

template <typename Dtype>
void FusedNesterovSolver<Dtype>::RestoreSolverStateFromHDF5(const string& state_file) {
  NesterovSolver<Dtype>::RestoreSolverStateFromHDF5(state_file);
  FindMoving();
}

template <typename Dtype>
void FusedNesterovSolver<Dtype>::RestoreSolverStateFromBinaryProto(const string& state_file) {
  NesterovSolver<Dtype>::RestoreSolverStateFromBinaryProto(state_file);
  FindMoving();
}

template <typename Dtype>
caffe_layers::ParameterArray<Dtype> FusedNesterovSolver<Dtype>::Parameter(int param_id, Dtype rate) const {
  Blob<Dtype>* blob = this->net_->learnable_params()[param_id];
  Blob<Dtype>* history = this->history_[param_id].get();
  const bool gpu = Caffe::mode() == Caffe::GPU;
  caffe_layers::ParameterArray<Dtype> parameter = {};
  parameter.data = gpu ? blob->mutable_gpu_data() : blob->mutable_cpu_data();
  parameter.gradient = gpu ? blob->gpu_diff() : blob->cpu_diff();
  parameter.history = gpu ? history->mutable_gpu_data() : history->mutable_cpu_data();
  parameter.count = blob->count();
  parameter.rate = rate * this->net_->params_lr()[param_id];
  parameter.decay = Dtype(this->param_.weight_decay()) * this->net_->params_weight_decay()[param_id];
  return parameter;
}

template <typename Dtype>
void FusedNesterovSolver<Dtype>::ApplyUpdate() {
  const Dtype rate = this->GetLearningRate();
  if (this->param_.display() && this->iter_ % this->param_.display() == 0) {
    LOG_IF(INFO, Caffe::root_solver()) << "Iteration " << this->iter_ << ", lr = " << rate;  // as SGDSolver says it
  }
  this->ClipGradients();
  parameters_.clear();
  for (int param_id : moving_) parameters_.push_back(Parameter(param_id, rate));
  caffe_layers::NesterovStep<Dtype> step = {};
  step.momentum = this->param_.momentum();
  step.gradient_scale = Dtype(1) / this->param_.iter_size();
  step.l1 = this->param_.regularization_type() == "L1";
  if (Caffe::mode() == Caffe::CPU) {
    caffe_layers::nesterov_kernels<Dtype>().front().update(parameters_.data(), parameters_.size(), step);
  } else {
#ifdef CPU_ONLY
    NO_GPU;
#else
    caffe_layers::nesterov_update_cuda(parameters_.data(), parameters_.size(), step, cudaStream_t());
    CUDA_POST_KERNEL_CHECK;
#endif
  }
  ++this->iter_;
}

INSTANTIATE_CLASS(FusedNesterovSolver);
REGISTER_SOLVER_CLASS(FusedNesterov);

}  // namespace caffe
