#include "caffe_layers/fused_group_convolution_layer.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "caffe/filler.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe_layers/device_memory.hpp"
#include "caffe_layers/kernels/workspace.hpp"
#include "caffe_layers/layer_params.hpp"

namespace caffe {

using caffe_layers::GroupConvolutionChain;
using caffe_layers::GroupConvolutionStage;

template <typename Dtype>
string FusedGroupConvolutionLayer<Dtype>::Title() const {
  return "Layer '" + this->layer_param_.name() + "' (FusedGroupConvolution): ";
}

template <typename Dtype>
GroupConvolutionChain FusedGroupConvolutionLayer<Dtype>::BuildChain(const Blob<Dtype>& bottom) const {
  const string layer = Title();
  CHECK_EQ(bottom.num_axes(), 4) << layer << "bottom has shape " << bottom.shape_string() << ": must be N x C x H x W";
  CHECK_GT(bottom.count(), 0) << layer << "bottom has shape " << bottom.shape_string() << ": must not be empty";
  try {
    return chain_from_param(this->layer_param_.fused_group_convolution_param(), bottom.shape(0), bottom.shape(1),
                            bottom.shape(2), bottom.shape(3));
  } catch (const std::invalid_argument& error) {
    LOG(FATAL) << layer << error.what();
  }
}

template <typename Dtype>
int FusedGroupConvolutionLayer<Dtype>::WeightBlob(int stage) const {
  int blob = stage;
  for (int s = 0; s < stage; ++s) blob += chain_.stages[s].bias;
  return blob;
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>&) {
  chain_ = BuildChain(*bottom[0]);
  CreateParameters();
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::CreateParameters() {
  const FusedGroupConvolutionParameter& param = this->layer_param_.fused_group_convolution_param();
  vector<vector<int>> shapes;
  vector<const FillerParameter*> fillers;
  for (size_t s = 0; s < chain_.stages.size(); ++s) {
    const GroupConvolutionStage& stage = chain_.stages[s];
    shapes.push_back({stage.out_channels, stage.in_channels / stage.group, stage.kernel, stage.kernel});
    fillers.push_back(&param.stage(s).weight_filler());
    if (!stage.bias) continue;
    shapes.push_back({stage.out_channels});
    fillers.push_back(&param.stage(s).bias_filler());
  }
  const bool given = !this->blobs_.empty();  // by `blobs` in the prototxt, as in stock layers
  const string layer = Title();
  if (given) {
    CHECK_EQ(this->blobs_.size(), shapes.size())
        << layer << "has " << this->blobs_.size() << " parameter blobs: must be " << shapes.size()
        << ": of each stage the weights and, unless bias_term is false, the bias";
  }
  this->blobs_.resize(shapes.size());
  for (size_t b = 0; b < shapes.size(); ++b) {
    if (given) {
      CHECK(this->blobs_[b]->shape() == shapes[b])
          << layer << "parameter blob " << b << " has shape " << this->blobs_[b]->shape_string() << ": must be "
          << Blob<Dtype>(shapes[b]).shape_string();
    } else {
      this->blobs_[b].reset(new Blob<Dtype>(shapes[b]));
      shared_ptr<Filler<Dtype>>(GetFiller<Dtype>(*fillers[b]))->Fill(this->blobs_[b].get());
    }
  }
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const string layer = Title();
  CHECK(bottom[0] != top[0]) << layer << "top and bottom are the same blob: cannot work in place, name the top "
                             << "differently";
  CHECK_EQ(bottom[0]->shape(1), chain_.stages[0].in_channels)
      << layer << "bottom has " << bottom[0]->shape(1) << " channels: must keep the number it was set up with";
  const GroupConvolutionStage& first = chain_.stages.front();
  const vector<int> set_up_for = {chain_.batch, first.in_channels, first.in_height, first.in_width};
  const bool reshaped = bottom[0]->shape() != set_up_for;
  if (reshaped) chain_ = BuildChain(*bottom[0]);
  const GroupConvolutionStage& last = chain_.stages.back();
  const vector<int> shape = {chain_.batch, last.out_channels, last.out_height, last.out_width};
  for (size_t b = 1; b < bottom.size(); ++b) {
    CHECK(bottom[b] != top[0]) << layer << "top and residual are the same blob: name the top differently";
    CHECK(bottom[b]->shape() == shape) << layer << "the residual has shape " << bottom[b]->shape_string()
                                       << ": must be that of the top, " << Blob<Dtype>(shape).shape_string();
  }
  top[0]->Reshape(shape);
  for (size_t t = 1; t < top.size(); ++t) {
    CHECK(std::find(bottom.begin(), bottom.end(), top[t]) == bottom.end())
        << layer << "the second top is one of the bottoms: must be a blob of its own";
    top[t]->ReshapeLike(*bottom[0]);
  }
  if (!on_gpu() && (reshaped || !kernel_)) PickKernel();
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::PickKernel() {
  const bool reference =
      this->layer_param_.fused_group_convolution_param().engine() == FusedGroupConvolutionParameter::REFERENCE;
  const auto* picked = reference ? &caffe_layers::group_convolution_kernels<Dtype>().back()
                                 : &caffe_layers::pick_group_convolution_kernel<Dtype>(chain_);
  if (picked != kernel_) LOG(INFO) << Title() << "CPU kernel " << picked->name;
  kernel_ = picked;
}

template <typename Dtype>
caffe_layers::ChainParameters<Dtype> FusedGroupConvolutionLayer<Dtype>::Parameters() const {
  caffe_layers::ChainParameters<Dtype> parameters;
  for (size_t s = 0; s < chain_.stages.size(); ++s) {
    const int b = WeightBlob(s);
    parameters.weight.push_back(device_data(*this->blobs_[b]));
    parameters.bias.push_back(chain_.stages[s].bias ? device_data(*this->blobs_[b + 1]) : nullptr);
  }
  return parameters;
}

template <typename Dtype>
caffe_layers::ChainGradients<Dtype> FusedGroupConvolutionLayer<Dtype>::Gradients(const vector<Blob<Dtype>*>& top,
                                                                                 Blob<Dtype>* bottom) const {
  const bool skip = top.size() > 1 && top[1]->diff()->head() != SyncedMemory::UNINITIALIZED;  // else nobody writes it
  const auto diff = [this](int blob) {
    return this->param_propagate_down_[blob] ? mutable_device_diff(this->blobs_[blob].get()) : nullptr;
  };
  caffe_layers::ChainGradients<Dtype> gradients;
  gradients.bottom = bottom ? mutable_device_diff(bottom) : nullptr;
  gradients.skip = skip ? device_diff(*top[1]) : nullptr;
  gradients.bottom_relu = this->layer_param_.fused_group_convolution_param().bottom_relu();
  for (size_t s = 0; s < chain_.stages.size(); ++s) {
    const int b = WeightBlob(s);
    gradients.weight.push_back(diff(b));
    gradients.bias.push_back(chain_.stages[s].bias ? diff(b + 1) : nullptr);
  }
  return gradients;
}

template <typename Dtype>
void* FusedGroupConvolutionLayer<Dtype>::Workspace(size_t bytes) const {
  try {
    return caffe_layers::thread_workspace(bytes);
  } catch (const std::bad_alloc&) {
    LOG(FATAL) << Title() << "needs " << (bytes >> 20) << " MB of memory for what lies between its stages, in all "
               << "threads: there is not so much";
  }
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                                                    const vector<Blob<Dtype>*>& top) {
  void* workspace = Workspace(kernel_->workspace_bytes(chain_, false));
  const Dtype* residual = bottom.size() > 1 ? bottom[1]->cpu_data() : nullptr;
  kernel_->forward(chain_, bottom[0]->cpu_data(), Parameters(), {top[0]->mutable_cpu_data(), residual}, workspace);
  if (top.size() > 1) top[1]->ShareData(*bottom[0]);
}

template <typename Dtype>
const Dtype* FusedGroupConvolutionLayer<Dtype>::BackwardEpilogue(const vector<Blob<Dtype>*>& top,
                                                                 const vector<bool>& propagate_down,
                                                                 const vector<Blob<Dtype>*>& bottom) {
  const int count = top[0]->count();
  const bool residual = bottom.size() > 1 && propagate_down[1];
  if (!chain_.relu) {
    if (residual) caffe_copy(count, top[0]->cpu_diff(), bottom[1]->mutable_cpu_diff());
    return top[0]->cpu_diff();
  }
  if (!residual) before_relu_.ReshapeLike(*top[0]);
  Dtype* diff = (residual ? bottom[1] : &before_relu_)->mutable_cpu_diff();
  caffe_layers::gradient_before_relu(count, top[0]->cpu_data(), top[0]->cpu_diff(), diff);
  return diff;
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::ShareSkipGradient(const Blob<Dtype>& skip, Blob<Dtype>* bottom) const {
  const bool constant = this->loss(1) != 0;  // a loss weight, which is to stay
  if (constant || bottom->diff() == skip.diff() || !can_share_diff(*bottom, skip)) return;
  if (skip.diff()->head() == SyncedMemory::UNINITIALIZED) return;
  const Dtype* diff = skip.cpu_diff();
  const bool written = std::any_of(diff, diff + skip.count(), [](Dtype value) { return value != 0; });
  if (written) bottom->ShareDiff(skip);
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
                                                     const vector<bool>& propagate_down,
                                                     const vector<Blob<Dtype>*>& bottom) {
  if (top.size() > 1 && propagate_down[0]) ShareSkipGradient(*top[1], bottom[0]);
  void* workspace = Workspace(kernel_->workspace_bytes(chain_, true));
  kernel_->backward(chain_, bottom[0]->cpu_data(), Parameters(), BackwardEpilogue(top, propagate_down, bottom),
                    Gradients(top, propagate_down[0] ? bottom[0] : nullptr), workspace);
}

#ifdef CPU_ONLY
STUB_GPU(FusedGroupConvolutionLayer);
#endif

INSTANTIATE_CLASS(FusedGroupConvolutionLayer);
REGISTER_LAYER_CLASS(FusedGroupConvolution);

}  // namespace caffe
