// FusedBatchNorm against the stock layers it stands for, and against finite differences.
#include <cmath>
#include <string>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/net.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe_layers/fused_batch_norm_layer.hpp"
#include "device_test.hpp"
#include "google/protobuf/text_format.h"
#include "jacobian_check.hpp"
#include "layer_test.hpp"

namespace caffe {
namespace {

struct Case {
  vector<int> shape;
  bool relu, residual, in_place, masked, global;  // masked: the gradient comes with the ReLU's taken
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  for (int dim : c.shape) out << dim << " ";
  return out << (c.relu ? "relu " : "") << (c.residual ? "residual " : "") << (c.in_place ? "in place " : "")
             << (c.masked ? "masked " : "") << (c.global ? "global statistics" : "");
}

vector<Case> AllCases() {
  // Spatial sizes below, at and above vectors; vectors of channels (N x C); one value per channel; three spatial axes.
  const vector<vector<int>> shapes = {{4, 3, 4, 4}, {3, 5, 7, 7}, {2, 17, 5, 13},
                                      {6, 9},       {1, 4, 1, 1}, {2, 3, 2, 3, 4}};
  vector<Case> cases;
  for (const auto& shape : shapes)
    for (int flags = 0; flags < 32; ++flags) {
      const Case c = {shape, bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8), bool(flags & 16)};
      if (c.relu || !c.masked) cases.push_back(c);
    }
  return cases;
}

/// What FusedBatchNorm stands for: BatchNorm, Scale, Eltwise, ReLU, each with a top of its own.
template <typename Dtype>
class StockLayers {
 public:
  StockLayers(const Case& c, const string& phase, Blob<Dtype>* x, Blob<Dtype>* residual) : tops_(4) {
    const string global = c.global ? "use_global_stats: true" : "";
    Add("type: 'BatchNorm' " + phase + " batch_norm_param { moving_average_fraction: 0.9 eps: 2e-5 " + global + "}",
        {x});
    Add("type: 'Scale' scale_param { bias_term: true }", {&tops_[0]});
    if (c.residual) Add("type: 'Eltwise'", {&tops_[layers_.size() - 1], residual});
    // cuDNN's has no more than four axes.
    if (c.relu) Add("type: 'ReLU' relu_param { engine: CAFFE }", {&tops_[layers_.size() - 1]});
  }

  Blob<Dtype>* top() { return &tops_[layers_.size() - 1]; }
  Blob<Dtype>* parameter(int b) { return b < 3 ? layers_[0]->blobs()[b].get() : layers_[1]->blobs()[b - 3].get(); }
  void Forward() {
    for (size_t l = 0; l < layers_.size(); ++l) layers_[l]->Forward(bottoms_[l], {&tops_[l]});
  }
  void Backward() {
    for (size_t l = layers_.size(); l-- > 0;)
      layers_[l]->Backward({&tops_[l]}, vector<bool>(bottoms_[l].size(), true), bottoms_[l]);
  }

 private:
  void Add(const string& prototxt, const vector<Blob<Dtype>*>& bottom) {
    Blob<Dtype>* top = &tops_[layers_.size()];
    layers_.push_back(MakeLayer<Dtype>(prototxt));
    bottoms_.push_back(bottom);
    layers_.back()->SetUp(bottom, {top});
  }

  vector<shared_ptr<Layer<Dtype>>> layers_;
  vector<vector<Blob<Dtype>*>> bottoms_;
  vector<Blob<Dtype>> tops_;
};

string FusedPrototxt(const Case& c, const string& phase, const string& engine) {
  return "name: 'bn' type: 'FusedBatchNorm' " + phase +
         " fused_batch_norm_param { moving_average_fraction: 0.9 eps: 2e-5 " +
         "relu: " + (c.relu ? "true " : "false ") + (c.masked ? "relu_gradient: false " : "") +
         (c.global ? "use_global_stats: true " : "") + "engine: " + engine + "}";
}

}  // namespace

template <typename TypeParam>
class FusedBatchNormLayerTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  /// Some iterations of both on new data each time: values, gradients and moving averages; then the TEST phase.
  void CompareWithStock(const Case& c, const string& engine) {
    std::ostringstream title;
    title << c << " engine " << engine;
    SCOPED_TRACE(title.str());
    Blob<Dtype> x(c.shape), residual(c.shape), in_place(c.shape), top;
    Blob<Dtype> stock_residual(c.shape);
    for (const string phase : {"phase: TRAIN", "phase: TEST"}) {
      StockLayers<Dtype> stock(c, phase, &x, &stock_residual);
      Blob<Dtype> own_x(c.shape);
      const auto layer = MakeLayer<Dtype>(FusedPrototxt(c, phase, engine));
      vector<Blob<Dtype>*> bottoms = {&own_x}, tops = {c.in_place ? &own_x : &top};
      if (c.residual) bottoms.push_back(&residual);
      layer->SetUp(bottoms, tops);
      ASSERT_EQ(5, layer->blobs().size());
      for (int b = 0; b < 5; ++b) {
        ASSERT_EQ(stock.parameter(b)->shape(), layer->blobs()[b]->shape());
        ExpectNear(*stock.parameter(b), *layer->blobs()[b], false, "initial parameter");
        // Statistics as a run would have left them; also what the TEST phase reads.
        Fill<Dtype>(stock.parameter(b), b == 4 ? -0.5 : 0.5, 1.5);
        layer->blobs()[b]->CopyFrom(*stock.parameter(b));
        caffe_set(layer->blobs()[b]->count(), Dtype(b), layer->blobs()[b]->mutable_cpu_diff());  // is added to
        stock.parameter(b)->CopyFrom(*layer->blobs()[b], true);
      }
      for (int iteration = 0; iteration < 3; ++iteration) {
        Fill<Dtype>(&x, 1, 4);
        Fill<Dtype>(&stock_residual, -1, 1);
        own_x.CopyFrom(x);
        residual.CopyFrom(stock_residual);
        stock.Forward();
        layer->Forward(bottoms, tops);
        ExpectNear(*stock.top(), *tops[0], false, "top");
        Fill<Dtype>(stock.top(), -1, 1, true);
        tops[0]->CopyFrom(*stock.top(), true);
        for (int i = 0; i < x.count() && c.masked; ++i) {
          if (!(tops[0]->cpu_data()[i] > 0)) tops[0]->mutable_cpu_diff()[i] = 0;
        }
        stock.Backward();
        // With one value per channel stock Scale overwrites gamma's gradient, where it should add to it.
        if (x.count() == x.shape(1)) caffe_set(x.shape(1), Dtype(0), layer->blobs()[3]->mutable_cpu_diff());
        layer->Backward(tops, vector<bool>(bottoms.size(), true), bottoms);
        ExpectNear(x, own_x, true, "gradient of x");
        if (c.residual) ExpectNear(stock_residual, residual, true, "gradient of the residual");
        for (int b = 0; b < 5; ++b) {
          ExpectNear(*stock.parameter(b), *layer->blobs()[b], false, "parameter");
          ExpectNear(*stock.parameter(b), *layer->blobs()[b], true, "gradient of a parameter");
        }
      }
    }
  }

  void CheckGradient(const string& param, bool residual) {
    SCOPED_TRACE(param + (residual ? " residual" : ""));
    Caffe::set_random_seed(1701);
    Blob<Dtype> x(3, 2, 2, 3), r(3, 2, 2, 3), top;
    Fill<Dtype>(&x, 1, 2);
    Fill<Dtype>(&r, -0.1, 0.1);
    for (int i = 0; i < x.count(); i += 2) x.mutable_cpu_data()[i] *= -1;
    vector<Blob<Dtype>*> bottoms = {&x}, tops = {&top};
    if (residual) bottoms.push_back(&r);
    const auto layer = MakeLayer<Dtype>(
        "type: 'FusedBatchNorm' fused_batch_norm_param { scale_filler { type: 'uniform' min: 0.8 max: 1.5 } "
        "bias_filler { type: 'uniform' min: -0.2 max: 0.2 } " +
        param + "}");
    layer->SetUp(bottoms, tops);
    layer->Forward(bottoms, tops);
    for (int i = 0; i < top.count(); ++i) {
      const Dtype y = top.cpu_data()[i];
      ASSERT_TRUE(y == 0 || std::abs(y) > 0.1) << "too near the ReLU's kink for finite differences";
    }
    EXPECT_TRUE(caffe_layers_test::jacobian_is_right(layer.get(), bottoms, tops, 1e-2, 2e-3));
  }
};

TYPED_TEST_CASE(FusedBatchNormLayerTest, TestDtypesAndDevices);

TYPED_TEST(FusedBatchNormLayerTest, TestEqualsStockLayers) {
  SKIP_WITHOUT_DEVICE();
  Caffe::set_random_seed(1701);
  for (const Case& c : AllCases()) this->CompareWithStock(c, "DEFAULT");
}

TYPED_TEST(FusedBatchNormLayerTest, TestReferenceEqualsStockLayers) {
  SKIP_WITHOUT_DEVICE();
  Caffe::set_random_seed(1701);
  for (const Case& c : AllCases()) this->CompareWithStock(c, "REFERENCE");
}

TYPED_TEST(FusedBatchNormLayerTest, TestGradient) {
  SKIP_WITHOUT_DEVICE();
  for (const string engine : {"engine: DEFAULT", "engine: REFERENCE"})
    for (const string relu : {" relu: false", " relu: true"})
      for (const bool residual : {false, true}) this->CheckGradient(engine + relu, residual);
}

TYPED_TEST(FusedBatchNormLayerTest, TestGradientOnlyWhereAskedFor) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> x(2, 3, 4, 4), residual(2, 3, 4, 4), top;
  const vector<Blob<Dtype>*> bottoms = {&x, &residual}, tops = {&top};
  const auto layer = MakeLayer<Dtype>("type: 'FusedBatchNorm' fused_batch_norm_param { relu: true }");
  layer->SetUp(bottoms, tops);
  vector<Blob<Dtype>*> gradients = {&x, &residual, layer->blobs()[3].get(), layer->blobs()[4].get()};
  for (size_t asked = 0; asked < gradients.size(); ++asked) {
    Fill<Dtype>(&x, -1, 1);
    Fill<Dtype>(&residual, -1, 1);
    layer->Forward(bottoms, tops);
    Fill<Dtype>(&top, 1, 2, true);
    for (Blob<Dtype>* blob : gradients) caffe_set(blob->count(), Dtype(7), blob->mutable_cpu_diff());
    for (int b = 3; b < 5; ++b) layer->set_param_propagate_down(b, asked == size_t(b - 1));
    layer->Backward(tops, {asked == 0, asked == 1}, bottoms);
    for (size_t g = 0; g < gradients.size(); ++g) {
      int changed = 0;
      for (int i = 0; i < gradients[g]->count(); ++i) changed += gradients[g]->cpu_diff()[i] != 7;
      EXPECT_EQ(g == asked, changed > 0) << "gradient " << g << " when " << asked << " is asked for";
    }
  }
}

// Without a ReLU's in between, the residual's gradient is y's: it is not copied, unless x's takes the place of y's.
TYPED_TEST(FusedBatchNormLayerTest, TestResidualGradientSharesTheTops) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const bool grown : {false, true}) {  // a blob that was larger once may not be given a smaller memory
    for (const bool in_place : {false, true}) {
      Blob<Dtype> x(2, 3, 4, 4), residual(2, 3, 4, 4), apart, expected;
      if (grown) residual.Reshape({4, 3, 4, 4});
      residual.ReshapeLike(x);
      Blob<Dtype>& top = in_place ? x : apart;
      const auto layer = MakeLayer<Dtype>("type: 'FusedBatchNorm'");
      layer->SetUp({&x, &residual}, {&top});
      for (int pass = 0; pass < 2; ++pass) {
        Fill<Dtype>(&x, -1, 1);
        Fill<Dtype>(&residual, -1, 1);
        layer->Forward({&x, &residual}, {&top});
        Fill<Dtype>(&top, 1, 2, true);
        expected.CopyFrom(top, true, true);
        layer->Backward({&top}, {true, true}, {&x, &residual});
        EXPECT_EQ(!grown && !in_place, residual.diff() == top.diff());
        ExpectNear(expected, residual, true, "gradient of the residual");
      }
    }
  }
}

TYPED_TEST(FusedBatchNormLayerTest, TestStatisticsAreNotLearned) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  NetParameter param;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "layer { name: 'data' type: 'Input' top: 'data' input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }"
      "layer { name: 'a' type: 'FusedBatchNorm' bottom: 'data' top: 'a' }"
      "layer { name: 'b' type: 'FusedBatchNorm' bottom: 'a' top: 'b' param { lr_mult: 0 } param { lr_mult: 0 }"
      "  param { lr_mult: 0 } param { lr_mult: 2 decay_mult: 0 } param { lr_mult: 3 } }",
      &param));
  const Net<Dtype> net(param);
  EXPECT_EQ(vector<float>({0, 0, 0, 1, 1, 0, 0, 0, 2, 3}), net.params_lr());
  EXPECT_EQ(vector<float>({1, 1, 1, 1, 1, 1, 1, 1, 0, 1}), net.params_weight_decay());
}

TYPED_TEST(FusedBatchNormLayerTest, TestBadInputEndsWithAMessage) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  Blob<Dtype> x(2, 3, 4, 4), same(2, 3, 4, 4), other(2, 3, 4, 5), vector_blob(vector<int>(1, 3)), top;
  const string name = "name: 'bn' type: 'FusedBatchNorm' ";
  const auto set_up = [&](const string& more, const vector<Blob<Dtype>*>& bottoms, Blob<Dtype>* y) {
    MakeLayer<Dtype>(name + more)->SetUp(bottoms, {y});
  };
  EXPECT_DEATH(set_up("", {&vector_blob}, &top), "Layer 'bn'.*shape 3 .*must be N x C");
  EXPECT_DEATH(set_up("", {&x, &other}, &top), "residual has shape 2 3 4 5 .*must be that of x, 2 3 4 4");
  EXPECT_DEATH(set_up("", {&x, &same}, &same), "top and residual are the same blob");
  EXPECT_DEATH(set_up("param { lr_mult: 1 }", {&x}, &top), "param 0 has lr_mult 1: must be 0");
  EXPECT_DEATH(set_up("fused_batch_norm_param { relu_gradient: false }", {&x}, &top),
               "relu_gradient is false.*set relu");
  EXPECT_DEATH(set_up("fused_batch_norm_param { eps: -1 }", {&x}, &top), "eps is -1");
  EXPECT_DEATH(set_up("fused_batch_norm_param { eps: inf }", {&x}, &top), "eps is inf");
  Blob<Dtype> empty(vector<int>{2, 0, 4});
  EXPECT_DEATH(set_up("", {&empty}, &top), "Layer 'bn'.*shape 2 0 4 .0.: must not be empty");
  EXPECT_DEATH(set_up("fused_batch_norm_param { moving_average_fraction: 2 }", {&x}, &top),
               "moving_average_fraction is 2: must be in 0 .. 1");
  EXPECT_DEATH(set_up("fused_batch_norm_param { moving_average_fraction: -0.5 }", {&x}, &top), "fraction is -0.5");
  EXPECT_DEATH(set_up("blobs { shape { dim: 1 } data: 1 }", {&x}, &top),
               "has 1 parameter blobs: must be 5: mean, variance, factor, gamma, beta");
}

TYPED_TEST(FusedBatchNormLayerTest, TestGradientWithoutTheRelusEndsWithAMessage) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  if (Caffe::mode() == Caffe::GPU) return;  // to look at the values there would wait for the GPU
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  Blob<Dtype> x(2, 3, 4, 4), top;
  const auto layer =
      MakeLayer<Dtype>("name: 'bn' type: 'FusedBatchNorm' fused_batch_norm_param { relu: true relu_gradient: false }");
  layer->SetUp({&x}, {&top});
  Fill<Dtype>(&x, -1, 1);
  layer->Forward({&x}, {&top});
  Fill<Dtype>(&top, 1, 2, true);
  EXPECT_DEATH(layer->Backward({&top}, {true}, {&x}), "Layer 'bn'.*relu_gradient is false.*bottom_relu: true");
}

}  // namespace caffe
