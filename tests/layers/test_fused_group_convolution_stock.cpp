// FusedGroupConvolution against the same chain written with stock Convolution (and ChannelPermutation) layers.
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "caffe/sgd_solvers.hpp"
#include "device_test.hpp"
#include "group_convolution_shapes.hpp"

namespace caffe {

using caffe_layers_test::expect_close;
using caffe_layers_test::fill_random;
using caffe_layers_test::group_convolution_shapes;
using caffe_layers_test::GroupConvolutionShape;
using caffe_layers_test::rounding_tolerance;

namespace {

LayerParameter* add_layer(const string& type, const string& bottom, const string& top, NetParameter* net) {
  LayerParameter* layer = net->add_layer();
  layer->set_name(top);
  layer->set_type(type);
  layer->add_bottom(bottom);
  layer->add_top(top);
  return layer;
}

/// Appends the chain as one fused layer; `residual` may be empty.
void add_fused(const FusedGroupConvolutionParameter& chain, const string& bottom, const string& residual,
               const string& top, NetParameter* net) {
  LayerParameter* layer = add_layer("FusedGroupConvolution", bottom, top, net);
  *layer->mutable_fused_group_convolution_param() = chain;
  if (!residual.empty()) layer->add_bottom(residual);
}

/// Appends the chain as one ChannelPermutation and one Convolution per stage, a last ChannelPermutation, Eltwise, ReLU.
void add_stock(const FusedGroupConvolutionParameter& chain, const string& bottom, const string& residual,
               const string& top, NetParameter* net) {
  string last = bottom;
  for (int s = 0; s < chain.stage_size(); ++s) {
    const auto& stage = chain.stage(s);
    const string name = top + "_" + std::to_string(s + 1);
    *add_layer("ChannelPermutation", last, name + "_in", net)->mutable_channel_permutation_param() =
        stage.permutation();
    LayerParameter* layer = add_layer("Convolution", name + "_in", name, net);
    ConvolutionParameter* conv = layer->mutable_convolution_param();
    conv->set_engine(ConvolutionParameter::CAFFE);
    conv->set_num_output(stage.num_output());
    conv->set_group(stage.group());
    conv->add_kernel_size(stage.kernel_size());
    conv->add_stride(stage.stride());
    conv->add_pad(stage.pad());
    conv->add_dilation(stage.dilation());
    conv->set_bias_term(stage.bias_term());
    *conv->mutable_weight_filler() = stage.weight_filler();
    *conv->mutable_bias_filler() = stage.bias_filler();
    last = name;
  }
  const string permuted = residual.empty() ? top : top + "_permuted";
  *add_layer("ChannelPermutation", last, permuted, net)->mutable_channel_permutation_param() =
      chain.output_permutation();
  if (!residual.empty()) add_layer("Eltwise", permuted, top, net)->add_bottom(residual);
  if (chain.relu()) add_layer("ReLU", top, top, net);
}

void add_input(const vector<int>& shape, const string& top, NetParameter* net) {
  LayerParameter* input = net->add_layer();
  input->set_name(top);
  input->set_type("Input");
  input->add_top(top);
  BlobShape* dims = input->mutable_input_param()->add_shape();
  for (int dim : shape) dims->add_dim(dim);
}

/// The chain from blob "x" to "y"; with a residual in blob "r" if its shape is given.
template <typename Dtype>
shared_ptr<Net<Dtype>> make_net(const GroupConvolutionShape& shape, decltype(&add_fused) add,
                                const vector<int>& residual = {}) {
  NetParameter param;
  param.set_force_backward(true);
  add_input(shape.bottom, "x", &param);
  if (!residual.empty()) add_input(residual, "r", &param);
  add(shape.param, "x", residual.empty() ? "" : "r", "y", &param);
  return shared_ptr<Net<Dtype>>(new Net<Dtype>(param));
}

template <typename Dtype>
void run(unsigned seed, Net<Dtype>* net) {
  fill_random(seed, net->blob_by_name("x").get());
  if (net->has_blob("r")) fill_random(seed + 99, net->blob_by_name("r").get());
  for (Blob<Dtype>* blob : net->learnable_params()) fill_random(++seed, blob);
  net->ClearParamDiffs();
  net->Forward();
  Blob<Dtype>* top = net->blob_by_name("y").get();
  Blob<Dtype> diff(top->shape());
  fill_random(++seed, &diff);
  caffe_copy(diff.count(), diff.cpu_data(), top->mutable_cpu_diff());
  net->Backward();
}

/// A small classifier with residual structure around two blocks, trained on one fixed batch.
NetParameter classifier(decltype(&add_fused) add) {
  NetParameter net;
  CHECK(
      google::protobuf::TextFormat::ParseFromString("layer { name: 'x' type: 'Input' top: 'x' top: 'label' input_param "
                                                    "{ shape { dim: [8, 3, 8, 8] } shape { dim: 8 } } }"
                                                    "layer { name: 'first' type: 'Convolution' bottom: 'x' top: "
                                                    "'first' convolution_param { num_output: 16 kernel_size: 3"
                                                    " pad: 1 weight_filler { type: 'msra' } } }",
                                                    &net));
  FusedGroupConvolutionParameter block;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "stage { num_output: 16 group: 16 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: 'msra' } }"
      "stage { num_output: 16 group: 4 weight_filler { type: 'msra' } }"
      "stage { num_output: 16 group: 4 permutation { interleave: 4 } weight_filler { type: 'msra' } }"
      "output_permutation { interleave: 4 inverse: true }",
      &block));
  add(block, "first", "", "block1", &net);
  add_layer("ReLU", "block1", "relu1", &net);
  block.mutable_stage(0)->set_stride(2);
  add(block, "relu1", "", "block2", &net);
  add_layer("ReLU", "block2", "relu2", &net);
  InnerProductParameter* classes = add_layer("InnerProduct", "relu2", "classes", &net)->mutable_inner_product_param();
  classes->set_num_output(5);
  classes->mutable_weight_filler()->set_type("xavier");
  add_layer("SoftmaxWithLoss", "classes", "loss", &net)->add_bottom("label");
  return net;
}

template <typename Dtype>
shared_ptr<SGDSolver<Dtype>> make_solver(const NetParameter& net, Caffe::Brew mode) {
  SolverParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "base_lr: 0.02 lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.0001 max_iter: 50 display: 0"
      " snapshot_after_train: false",
      &param));
  *param.mutable_net_param() = net;
  param.set_solver_mode(mode == Caffe::GPU ? SolverParameter::GPU : SolverParameter::CPU);
  shared_ptr<SGDSolver<Dtype>> solver(new SGDSolver<Dtype>(param));
  fill_random(1, solver->net()->blob_by_name("x").get());
  for (int i = 0; i < 8; ++i) solver->net()->blob_by_name("label")->mutable_cpu_data()[i] = i % 5;
  return solver;
}

}  // namespace

template <typename TypeParam>
class FusedGroupConvolutionStockTest : public MultiDeviceTest<TypeParam> {};
TYPED_TEST_CASE(FusedGroupConvolutionStockTest, TestDtypesAndDevices);

/// Expects the same data and gradients in the blobs named, and in all parameters.
template <typename Dtype>
void expect_same(const Net<Dtype>& fused, const Net<Dtype>& stock, const vector<string>& names, const string& where) {
  const auto expect_blobs = [&](const Blob<Dtype>& actual, const Blob<Dtype>& expected, const string& what) {
    ASSERT_EQ(expected.shape(), actual.shape()) << where << ", " << what;
    const double tolerance = rounding_tolerance<Dtype>();
    expect_close(actual.cpu_data(), expected.cpu_data(), actual.count(), tolerance, where + ", " + what);
    expect_close(actual.cpu_diff(), expected.cpu_diff(), actual.count(), tolerance, where + ", diff of " + what);
  };
  for (const string& name : names) expect_blobs(*fused.blob_by_name(name), *stock.blob_by_name(name), name);
  ASSERT_EQ(stock.learnable_params().size(), fused.learnable_params().size());
  for (size_t b = 0; b < stock.learnable_params().size(); ++b) {
    expect_blobs(*fused.learnable_params()[b], *stock.learnable_params()[b], "parameter " + std::to_string(b));
  }
}

TYPED_TEST(FusedGroupConvolutionStockTest, ForwardAndBackwardAgree) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const GroupConvolutionShape& shape : group_convolution_shapes(2)) {
    const auto fused = make_net<Dtype>(shape, add_fused), stock = make_net<Dtype>(shape, add_stock);
    run(1, fused.get());
    run(1, stock.get());
    expect_same(*fused, *stock, {"y", "x"}, shape.name);
  }
}

/// The stock net's ReLU overwrites y's gradient by that in front of it, so y's is not compared.
TYPED_TEST(FusedGroupConvolutionStockTest, ResidualAndReluAgree) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (GroupConvolutionShape shape : group_convolution_shapes(2)) {
    if (shape.name.find("edge") != 0 && shape.name.find("igcv2-c64-") != 0) continue;
    const vector<int> top = make_net<Dtype>(shape, add_fused)->blob_by_name("y")->shape();
    for (const bool residual : {false, true}) {
      for (const bool relu : {false, true}) {
        shape.param.set_relu(relu);
        const vector<int> residual_shape = residual ? top : vector<int>();
        const auto fused = make_net<Dtype>(shape, add_fused, residual_shape);
        const auto stock = make_net<Dtype>(shape, add_stock, residual_shape);
        run(1, fused.get());
        run(1, stock.get());
        vector<string> names = {"x"};
        if (residual) names.push_back("r");
        expect_same(*fused, *stock, names, shape.name + (residual ? ", residual" : "") + (relu ? ", relu" : ""));
        expect_close(fused->blob_by_name("y")->cpu_data(), stock->blob_by_name("y")->cpu_data(),
                     fused->blob_by_name("y")->count(), rounding_tolerance<Dtype>(), shape.name + ", y");
      }
    }
  }
}

TYPED_TEST(FusedGroupConvolutionStockTest, TrainingRunsAgree) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const auto stock = make_solver<Dtype>(classifier(add_stock), TypeParam::device);
  const auto fused = make_solver<Dtype>(classifier(add_fused), TypeParam::device);
  const auto& weights = stock->net()->learnable_params();
  ASSERT_EQ(weights.size(), fused->net()->learnable_params().size());
  for (size_t b = 0; b < weights.size(); ++b) fused->net()->learnable_params()[b]->CopyFrom(*weights[b]);
  vector<Dtype> start(weights[2]->cpu_data(), weights[2]->cpu_data() + weights[2]->count());
  stock->Step(50);
  fused->Step(50);
  EXPECT_NE(start[0], weights[2]->cpu_data()[0]);
  Dtype loss = 0;
  stock->net()->Forward(&loss);
  EXPECT_LT(loss, 0.5) << "the nets learnt nothing to compare";
  for (size_t b = 0; b < weights.size(); ++b) {
    // Rounding grows over the iterations, by far less than a wrong gradient would do.
    expect_close(fused->net()->learnable_params()[b]->cpu_data(), weights[b]->cpu_data(), weights[b]->count(),
                 20 * rounding_tolerance<Dtype>(), "parameter " + std::to_string(b) + " after training");
  }
}

}  // namespace caffe
