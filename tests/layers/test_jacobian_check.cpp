// The check of Jacobians itself: what it accepts Caffe's checker accepts, and no wrong derivative goes unnoticed.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe_layers/fused_group_convolution_layer.hpp"
#include "device_test.hpp"
#include "group_convolution_shapes.hpp"
#include "jacobian_check.hpp"
#include "layer_test.hpp"

namespace caffe {

using caffe_layers_test::fill_random;
using caffe_layers_test::jacobian_is_right;
using caffe_layers_test::random_values;

namespace {

constexpr double kStep = 1e-2, kThreshold = 1e-3;

/// Five outputs in two tops, a matrix times nine values in a parameter and two bottoms. Backward has a matrix of its
/// own, for tests to spoil.
template <typename Dtype>
class LinearLayer : public Layer<Dtype> {
 public:
  static constexpr int kOutputs = 5, kValues = 9;

  LinearLayer()
      : Layer<Dtype>(LayerParameter()),
        jacobian(random_values<Dtype>(kOutputs * kValues, 1)),
        backward_jacobian(jacobian) {
    this->blobs_.emplace_back(new Blob<Dtype>(vector<int>{4}));
    fill_random(2, this->blobs_[0].get());
  }

  const char* type() const override { return "Linear"; }
  void Reshape(const vector<Blob<Dtype>*>&, const vector<Blob<Dtype>*>& top) override {
    top[0]->Reshape({3});
    top[1]->Reshape({2});
  }

  vector<Dtype> jacobian, backward_jacobian;
  bool adds_to_bottoms = false;
  int forward_passes = 0, backward_passes = 0;

 protected:
  /// Blob and place of the output or value that has this number in the matrix.
  static std::pair<Blob<Dtype>*, int> Find(const vector<Blob<Dtype>*>& blobs, int number) {
    size_t b = 0;
    for (; number >= blobs[b]->count(); ++b) number -= blobs[b]->count();
    return {blobs[b], number};
  }

  vector<Blob<Dtype>*> Inputs(const vector<Blob<Dtype>*>& bottom) const {
    return {this->blobs_[0].get(), bottom[0], bottom[1]};
  }

  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override {
    ++forward_passes;
    for (int o = 0; o < kOutputs; ++o) {
      Dtype sum = 0;
      for (int i = 0; i < kValues; ++i) {
        const auto value = Find(Inputs(bottom), i);
        sum += jacobian[o * kValues + i] * value.first->cpu_data()[value.second];
      }
      const auto output = Find(top, o);
      output.first->mutable_cpu_data()[output.second] = sum;
    }
  }

  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>&, const vector<Blob<Dtype>*>& bottom) override {
    ++backward_passes;
    for (int i = 0; i < kValues; ++i) {
      Dtype sum = 0;
      for (int o = 0; o < kOutputs; ++o) {
        const auto output = Find(top, o);
        const Dtype diff = output.first->cpu_diff()[output.second];
        if (diff != 0) sum += backward_jacobian[o * kValues + i] * diff;  // 0 times infinity is NaN
      }
      const auto value = Find(Inputs(bottom), i);
      Dtype& diff = value.first->mutable_cpu_diff()[value.second];
      const bool adds = adds_to_bottoms || value.first == this->blobs_[0].get();
      diff = (adds ? diff : 0) + sum;
    }
  }
};

template <typename Dtype>
class ConvolutionWithoutTheSkipGradient : public FusedGroupConvolutionLayer<Dtype> {
 public:
  using FusedGroupConvolutionLayer<Dtype>::FusedGroupConvolutionLayer;

 protected:
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override {
    FusedGroupConvolutionLayer<Dtype>::Backward_cpu({top[0]}, propagate_down, bottom);
  }
};

}  // namespace

template <typename Dtype>
class JacobianCheckTest : public CPUDeviceTest<Dtype> {
 protected:
  JacobianCheckTest() : first_(vector<int>{2}), second_(vector<int>{3}) {
    fill_random(3, &first_);
    fill_random(4, &second_);
  }

  ::testing::AssertionResult Check(LinearLayer<Dtype>* layer) {
    return jacobian_is_right(layer, {&first_, &second_}, {&top_, &second_top_}, kStep, kThreshold);
  }

  Blob<Dtype> first_, second_, top_, second_top_;
};
TYPED_TEST_CASE(JacobianCheckTest, TestDtypes);

TYPED_TEST(JacobianCheckTest, AcceptsWhatCaffesCheckerAccepts) {
  GradientChecker<TypeParam> caffes(kStep, kThreshold);
  LinearLayer<TypeParam> linear;
  const auto result = this->Check(&linear);
  EXPECT_TRUE(result);
  EXPECT_STREQ("45 derivatives are right", result.message());
  EXPECT_EQ(2 * 9 + 1, linear.forward_passes);
  EXPECT_EQ(5, linear.backward_passes);
  caffes.CheckGradientExhaustive(&linear, {&this->first_, &this->second_}, {&this->top_, &this->second_top_});

  for (const string param : {"type: 'TanH'",
                             "type: 'Convolution' convolution_param { num_output: 2 kernel_size: 3 "
                             "pad: 1 weight_filler { type: 'gaussian' } engine: CAFFE }"}) {
    Blob<TypeParam> bottom(vector<int>{2, 3, 2, 3}), top;
    fill_random(5, &bottom);
    const auto layer = MakeLayer<TypeParam>(param);
    EXPECT_TRUE(jacobian_is_right(layer.get(), {&bottom}, {&top}, kStep, kThreshold)) << param;
    caffes.CheckGradientExhaustive(layer.get(), {&bottom}, {&top});
  }
}

TYPED_TEST(JacobianCheckTest, NamesTheWrongDerivative) {
  const vector<string> outputs = {"top 0 [0]", "top 0 [1]", "top 0 [2]", "top 1 [0]", "top 1 [1]"};
  const vector<string> values = {"parameter blob 0 [0]", "parameter blob 0 [1]", "parameter blob 0 [2]",
                                 "parameter blob 0 [3]", "bottom 0 [0]",         "bottom 0 [1]",
                                 "bottom 1 [0]",         "bottom 1 [1]",         "bottom 1 [2]"};
  for (int entry = 0; entry < 5 * 9; ++entry) {
    LinearLayer<TypeParam> layer;
    layer.backward_jacobian[entry] += TypeParam(0.01);
    const auto result = this->Check(&layer);
    EXPECT_FALSE(result);
    const string expected = "1 of 45 derivatives are wrong\n" + outputs[entry / 9] + " by " + values[entry % 9] + " = ";
    EXPECT_EQ(expected, string(result.message()).substr(0, expected.size()));
  }
}

/// The derivatives of twice the output are compared.
TYPED_TEST(JacobianCheckTest, AllowsTheThresholdAndNoMore) {
  for (const double size : {0.1, 0.5, 8.0, -8.0}) {
    for (const double error : {-1.2, -0.8, 0.8, 1.2}) {
      LinearLayer<TypeParam> layer;
      layer.jacobian[13] = layer.backward_jacobian[13] = size;
      layer.backward_jacobian[13] += error * kThreshold * std::max(1.0, std::abs(2 * size)) / 2;
      EXPECT_EQ(std::abs(error) < 1, this->Check(&layer)) << size << " wrong by " << error << " thresholds";
    }
  }
}

TYPED_TEST(JacobianCheckTest, RejectsWhatIsNoNumber) {
  for (const TypeParam wrong : {std::numeric_limits<TypeParam>::quiet_NaN(), std::numeric_limits<TypeParam>::infinity(),
                                -std::numeric_limits<TypeParam>::infinity()}) {
    LinearLayer<TypeParam> computed, estimated, both;
    computed.backward_jacobian[44] = estimated.jacobian[44] = both.jacobian[44] = both.backward_jacobian[44] = wrong;
    for (LinearLayer<TypeParam>* layer : {&computed, &estimated, &both}) EXPECT_FALSE(this->Check(layer)) << wrong;
  }
}

TYPED_TEST(JacobianCheckTest, TellsOfTenAndCountsTheRest) {
  LinearLayer<TypeParam> layer;
  for (TypeParam& entry : layer.backward_jacobian) entry += TypeParam(0.01);
  const string message = this->Check(&layer).message();
  EXPECT_EQ(0, message.find("45 of 45 derivatives are wrong")) << message;
  EXPECT_EQ(10, std::count(message.begin(), message.end(), '\n')) << message;
}

TYPED_TEST(JacobianCheckTest, RejectsABottomGradientThatIsAddedTo) {
  LinearLayer<TypeParam> layer;
  layer.adds_to_bottoms = true;
  EXPECT_FALSE(this->Check(&layer));
}

TYPED_TEST(JacobianCheckTest, RejectsAMissingSkipGradient) {
  const auto shape = caffe_layers_test::parse_shape("skip 1x4x2x3 | 6 g2");
  LayerParameter param;
  *param.mutable_fused_group_convolution_param() = shape.param;
  FusedGroupConvolutionLayer<TypeParam> right(param);
  ConvolutionWithoutTheSkipGradient<TypeParam> wrong(param);
  Blob<TypeParam> bottom(shape.bottom), top, again;
  fill_random(6, &bottom);
  EXPECT_TRUE(jacobian_is_right(&right, {&bottom}, {&top, &again}, kStep, kThreshold));
  const auto result = jacobian_is_right(&wrong, {&bottom}, {&top, &again}, kStep, kThreshold);
  EXPECT_FALSE(result);
  EXPECT_EQ(0, string(result.message()).find("24 of ")) << result.message();  // those of each value by itself
}

TYPED_TEST(JacobianCheckTest, InPlaceEndsWithAMessage) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto layer = MakeLayer<TypeParam>("type: 'TanH'");
  EXPECT_DEATH((void)jacobian_is_right(layer.get(), {&this->first_}, {&this->first_}, kStep, kThreshold), "in place");
}

}  // namespace caffe
