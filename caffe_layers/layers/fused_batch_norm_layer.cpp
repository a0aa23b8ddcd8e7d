#include "caffe_layers/fused_batch_norm_layer.hpp"

#include <algorithm>
#include <cmath>

#include "caffe/filler.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_layers/device_memory.hpp"

namespace caffe {

template <typename Dtype>
string FusedBatchNormLayer<Dtype>::Title() const {
  return "Layer '" + this->layer_param_.name() + "' (FusedBatchNorm): ";
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const FusedBatchNormParameter& param = this->layer_param_.fused_batch_norm_param();
  CheckBottom(*bottom[0]);
  CHECK(param.eps() >= 0 && std::isfinite(param.eps()))
      << Title() << "eps is " << param.eps() << ": must be a number, not negative";
  CHECK(param.moving_average_fraction() >= 0 && param.moving_average_fraction() <= 1)
      << Title() << "moving_average_fraction is " << param.moving_average_fraction() << ": must be in 0 .. 1";
  shape_.channels = bottom[0]->shape(1);
  use_global_stats_ = param.has_use_global_stats() ? param.use_global_stats() : this->phase_ == TEST;
  moving_average_fraction_ = param.moving_average_fraction();
  eps_ = param.eps();
  relu_ = param.relu();
  relu_gradient_ = relu_ && param.relu_gradient();
  CHECK(relu_ || param.relu_gradient()) << Title() << "relu_gradient is false, but relu too: leave it out, or set relu";
  const bool reference = param.engine() == FusedBatchNormParameter::REFERENCE;
  kernel_ =
      reference ? &caffe_layers::reference_batch_norm_kernel<Dtype>() : &caffe_layers::pick_batch_norm_kernel<Dtype>();
  if (!on_gpu()) LOG(INFO) << Title() << "CPU kernel " << kernel_->name;
  CreateParameters();
  FixStatistics();
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::CheckBottom(const Blob<Dtype>& x) const {
  CHECK_GE(x.num_axes(), 2) << Title() << "bottom has shape " << x.shape_string() << ": must be N x C or N x C x ...";
  CHECK_GT(x.count(), 0) << Title() << "bottom has shape " << x.shape_string() << ": must not be empty";
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::CreateParameters() {
  const int channels = shape_.channels;
  const vector<vector<int>> shapes = {{channels}, {channels}, {1}, {channels}, {channels}};
  this->param_propagate_down_.resize(kParameterBlobs, true);
  if (!this->blobs_.empty()) {  // given by `blobs` in the prototxt, as in stock layers
    CHECK_EQ(this->blobs_.size(), kParameterBlobs)
        << Title() << "has " << this->blobs_.size() << " parameter blobs: must be " << kParameterBlobs
        << ": mean, variance, factor, gamma, beta";
    for (int b = 0; b < kParameterBlobs; ++b) {
      CHECK(this->blobs_[b]->shape() == shapes[b])
          << Title() << "parameter blob " << b << " has shape " << this->blobs_[b]->shape_string() << ": must be "
          << Blob<Dtype>(shapes[b]).shape_string();
    }
    return;
  }
  for (const auto& shape : shapes) this->blobs_.emplace_back(new Blob<Dtype>(shape));  // zeros
  const FusedBatchNormParameter& param = this->layer_param_.fused_batch_norm_param();
  FillerParameter scale_filler = param.scale_filler();
  if (!param.has_scale_filler()) scale_filler.set_value(1);
  shared_ptr<Filler<Dtype>>(GetFiller<Dtype>(scale_filler))->Fill(this->blobs_[kGamma].get());
  shared_ptr<Filler<Dtype>>(GetFiller<Dtype>(param.bias_filler()))->Fill(this->blobs_[kBeta].get());
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::FixStatistics() {
  for (int b = kMean; b <= kFactor; ++b) {
    if (this->layer_param_.param_size() == b) this->layer_param_.add_param()->set_lr_mult(0);
    CHECK_EQ(this->layer_param_.param(b).lr_mult(), 0)
        << Title() << "param " << b << " has lr_mult " << this->layer_param_.param(b).lr_mult()
        << ": must be 0, as the first three blobs (mean, variance, factor) are no learned parameters; gamma's and "
           "beta's "
        << "param are the fourth and fifth";
  }
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Blob<Dtype>& x = *bottom[0];
  CheckBottom(x);
  CHECK_EQ(x.shape(1), shape_.channels) << Title() << "bottom has " << x.shape(1)
                                        << " channels: must keep the number it was set up with";
  shape_.num = x.shape(0);
  shape_.spatial = x.count(2);
  mean_.Reshape({shape_.channels});
  variance_.Reshape({shape_.channels});
  for (size_t b = 1; b < bottom.size(); ++b) {
    CHECK(bottom[b]->shape() == x.shape()) << Title() << "the residual has shape " << bottom[b]->shape_string()
                                           << ": must be that of x, " << x.shape_string();
    CHECK(bottom[b] != top[0]) << Title() << "top and residual are the same blob: only x can be worked on in place";
  }
  if (top[0] == bottom[0]) {
    input_.ReshapeLike(x);
    output_.ReshapeLike(x);
  } else {
    top[0]->ReshapeLike(x);
  }
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::ShareOutputMemory(const Blob<Dtype>& x, Blob<Dtype>* y) {
  const bool same = x.data() == output_.data();
  const bool unused = same ? device_data(x) == output_address_ : output_.data().use_count() == 1;
  const Blob<Dtype>& last = same ? input_ : output_;
  if (unused && last.data()->size() == x.data()->size()) return y->ShareData(last);
  Blob<Dtype> fresh(vector<int>(1, x.data()->size() / sizeof(Dtype)));
  fresh.ReshapeLike(x);
  y->ShareData(fresh);
}

template <typename Dtype>
const Blob<Dtype>& FusedBatchNormLayer<Dtype>::KeepInput(const vector<Blob<Dtype>*>& bottom,
                                                         const vector<Blob<Dtype>*>& top) {
  if (top[0] != bottom[0]) return *bottom[0];
  Blob<Dtype> x(bottom[0]->shape());
  x.ShareData(*bottom[0]);
  ShareOutputMemory(x, top[0]);
  output_.ShareData(*top[0]);
  output_address_ = device_data(output_);
  input_.ShareData(x);
  return input_;
}

template <typename Dtype>
Dtype* FusedBatchNormLayer<Dtype>::ResidualGradient(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                    const vector<Blob<Dtype>*>& bottom) const {
  if (bottom.size() < 2 || !propagate_down[1]) return nullptr;
  const bool constant = this->loss(0) != 0;  // the top's gradient is its loss weight, which is to stay
  if (relu_gradient_ || top[0] == bottom[0] || constant || !can_share_diff(*bottom[1], *top[0])) {
    return mutable_device_diff(bottom[1]);
  }
  bottom[1]->ShareDiff(*top[0]);
  return nullptr;
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::CheckMask(const Blob<Dtype>& y, const Blob<Dtype>& y_diff) const {
  const int count = std::min(y.count(), 1024);
  for (int i = 0; i < count; ++i) {
    CHECK(y.cpu_data()[i] > 0 || y_diff.cpu_diff()[i] == 0)
        << Title() << "relu_gradient is false, but the top's gradient is " << y_diff.cpu_diff()[i] << " where the ReLU "
        << "gave 0: the top's first reader must be a FusedGroupConvolution with bottom_relu: true, and another reader "
        << "read its second top";
  }
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::LoadGlobalStatistics() {
  const Dtype factor = this->blobs_[kFactor]->cpu_data()[0];
  const Dtype scale = factor == 0 ? 0 : 1 / factor;
  caffe_cpu_scale(shape_.channels, scale, this->blobs_[kMean]->cpu_data(), mean_.mutable_cpu_data());
  caffe_cpu_scale(shape_.channels, scale, this->blobs_[kVariance]->cpu_data(), variance_.mutable_cpu_data());
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::UpdateMovingAverage() {
  Dtype& factor = this->blobs_[kFactor]->mutable_cpu_data()[0];
  factor = factor * moving_average_fraction_ + 1;
  caffe_cpu_axpby(shape_.channels, Dtype(1), mean_.cpu_data(), moving_average_fraction_,
                  this->blobs_[kMean]->mutable_cpu_data());
  const int m = shape_.num * shape_.spatial;
  const Dtype unbiased = m > 1 ? Dtype(m) / (m - 1) : 1;
  caffe_cpu_axpby(shape_.channels, unbiased, variance_.cpu_data(), moving_average_fraction_,
                  this->blobs_[kVariance]->mutable_cpu_data());
}

template <typename Dtype>
caffe_layers::BatchNormForward<Dtype> FusedBatchNormLayer<Dtype>::ForwardPass(const vector<Blob<Dtype>*>& bottom,
                                                                              const vector<Blob<Dtype>*>& top) {
  caffe_layers::BatchNormForward<Dtype> pass = {};
  pass.shape = shape_;
  pass.x = device_data(KeepInput(bottom, top));
  pass.residual = bottom.size() > 1 ? device_data(*bottom[1]) : nullptr;
  pass.gamma = device_data(*this->blobs_[kGamma]);
  pass.beta = device_data(*this->blobs_[kBeta]);
  pass.eps = eps_;
  pass.relu = relu_;
  pass.batch_statistics = !use_global_stats_;
  pass.mean = mutable_device_data(&mean_);
  pass.variance = mutable_device_data(&variance_);
  pass.y = mutable_device_data(top[0]);
  return pass;
}

template <typename Dtype>
caffe_layers::BatchNormBackward<Dtype> FusedBatchNormLayer<Dtype>::BackwardPass(const vector<Blob<Dtype>*>& top,
                                                                                const vector<bool>& propagate_down,
                                                                                const vector<Blob<Dtype>*>& bottom) {
  const auto parameter_diff = [this](int blob) {
    return this->param_propagate_down_[blob] ? mutable_device_diff(this->blobs_[blob].get()) : nullptr;
  };
  caffe_layers::BatchNormBackward<Dtype> pass = {};
  pass.shape = shape_;
  pass.x = device_data(top[0] == bottom[0] ? input_ : *bottom[0]);
  pass.y = device_data(top[0] == bottom[0] ? output_ : *top[0]);
  pass.residual = bottom.size() > 1;
  pass.gamma = device_data(*this->blobs_[kGamma]);
  pass.beta = device_data(*this->blobs_[kBeta]);
  pass.eps = eps_;
  pass.relu = relu_gradient_;
  pass.batch_statistics = !use_global_stats_;
  pass.mean = device_data(mean_);
  pass.variance = device_data(variance_);
  pass.y_diff = device_diff(*top[0]);
  pass.x_diff = propagate_down[0] ? mutable_device_diff(bottom[0]) : nullptr;
  pass.residual_diff = ResidualGradient(top, propagate_down, bottom);
  pass.gamma_diff = parameter_diff(kGamma);
  pass.beta_diff = parameter_diff(kBeta);
  return pass;
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (use_global_stats_) LoadGlobalStatistics();
  kernel_->forward(ForwardPass(bottom, top));
  if (!use_global_stats_) UpdateMovingAverage();
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                              const vector<Blob<Dtype>*>& bottom) {
  if (relu_ && !relu_gradient_) CheckMask(top[0] == bottom[0] ? output_ : *top[0], *top[0]);
  kernel_->backward(BackwardPass(top, propagate_down, bottom));
}

#ifdef CPU_ONLY
STUB_GPU(FusedBatchNormLayer);
#endif

INSTANTIATE_CLASS(FusedBatchNormLayer);
REGISTER_LAYER_CLASS(FusedBatchNorm);

}  // namespace caffe
