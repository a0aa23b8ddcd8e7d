// Gradient checks of FusedGroupConvolution. The output is linear in the input and in each parameter blob, so a central
// difference has no truncation error whatever its step: steps are of the size of the values, which leaves only
// rounding.
//
// - Exhaustive: the Jacobian, every output by every input and parameter, on the edge cases of the list, cut to one
//   image of at most 3 x 4.
// - Directional: on every shape of the list at its full width and map, batch 2: for each blob, the derivative of a
//   random combination of all outputs along a random direction in that blob, against the gradient's product with it.
#include <omp.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "caffe_layers/fused_group_convolution_layer.hpp"
#include "device_test.hpp"
#include "group_convolution_shapes.hpp"
#include "jacobian_check.hpp"

namespace caffe {

using caffe_layers_test::fill_random;
using caffe_layers_test::group_convolution_shapes;
using caffe_layers_test::GroupConvolutionShape;
using caffe_layers_test::jacobian_is_right;
using caffe_layers_test::random_values;

namespace {

template <typename Dtype>
struct LayerUnderTest {
  LayerUnderTest(const GroupConvolutionShape& shape, FusedGroupConvolutionParameter::Engine engine)
      : bottom(shape.bottom) {
    LayerParameter param;
    param.set_name(shape.name);
    *param.mutable_fused_group_convolution_param() = shape.param;
    param.mutable_fused_group_convolution_param()->set_engine(engine);
    layer.reset(new FusedGroupConvolutionLayer<Dtype>(param));
    layer->SetUp({&bottom}, {&top});
    fill_random(1, &bottom);
    for (size_t b = 0; b < layer->blobs().size(); ++b) fill_random(2 + b, layer->blobs()[b].get());
  }

  /// Sum of all outputs, each times its weight.
  double Objective(const vector<Dtype>& weights) {
    layer->Forward({&bottom}, {&top});
    return std::inner_product(weights.begin(), weights.end(), top.cpu_data(), 0.0, std::plus<double>(),
                              [](double a, double b) { return a * b; });
  }

  Blob<Dtype> bottom, top;
  shared_ptr<FusedGroupConvolutionLayer<Dtype>> layer;
};

/// The derivative of `objective` along a random direction in `blob` against blob's diff.
template <typename Dtype>
void check_direction(LayerUnderTest<Dtype>* test, const vector<Dtype>& weights, Blob<Dtype>* blob, const string& what) {
  const int count = blob->count();
  const vector<Dtype> direction = random_values<Dtype>(count, 99), origin(blob->cpu_data(), blob->cpu_data() + count);
  double expected = 0;
  for (int i = 0; i < count; ++i) expected += static_cast<double>(direction[i]) * blob->cpu_diff()[i];
  double objective[2], scale = 0;
  for (int side = 0; side < 2; ++side) {
    for (int i = 0; i < count; ++i) blob->mutable_cpu_data()[i] = origin[i] + (side ? -1 : 1) * direction[i];
    objective[side] = test->Objective(weights);
    scale += std::sqrt(static_cast<double>(test->top.sumsq_data()));
  }
  std::copy(origin.begin(), origin.end(), blob->mutable_cpu_data());
  const double tolerance = 200 * std::numeric_limits<Dtype>::epsilon() * scale;
  EXPECT_NEAR((objective[0] - objective[1]) / 2, expected, tolerance) << what;
}

}  // namespace

template <typename TypeParam>
class FusedGroupConvolutionGradientTest : public MultiDeviceTest<TypeParam> {};
TYPED_TEST_CASE(FusedGroupConvolutionGradientTest, TestDtypesAndDevices);

TYPED_TEST(FusedGroupConvolutionGradientTest, ExhaustiveGradient) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);    // tens of thousands of tiny passes: on a busy machine threads would only wait
  std::set<string> checked;  // cases that differ in their maps only are the same when cut
  for (GroupConvolutionShape shape : group_convolution_shapes(1)) {
    if (shape.name.find("edge") != 0) continue;
    shape.bottom = {1, shape.bottom[1], std::min(shape.bottom[2], 3), std::min(shape.bottom[3], 4)};
    if (!checked.insert(std::to_string(shape.bottom[2]) + shape.param.SerializeAsString()).second) continue;
    for (auto engine : {FusedGroupConvolutionParameter::REFERENCE, FusedGroupConvolutionParameter::DEFAULT}) {
      SCOPED_TRACE(shape.name);
      LayerUnderTest<Dtype> test(shape, engine);
      EXPECT_TRUE(jacobian_is_right(test.layer.get(), {&test.bottom}, {&test.top}, 1, 1e-3));
    }
  }
  omp_set_num_threads(threads);
}

TYPED_TEST(FusedGroupConvolutionGradientTest, DirectionalGradientOfAllShapes) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const GroupConvolutionShape& shape : group_convolution_shapes(2)) {
    for (auto engine : {FusedGroupConvolutionParameter::REFERENCE, FusedGroupConvolutionParameter::DEFAULT}) {
      LayerUnderTest<Dtype> test(shape, engine);
      const vector<Dtype> weights = random_values<Dtype>(test.top.count(), 77);
      test.layer->Forward({&test.bottom}, {&test.top});
      std::copy(weights.begin(), weights.end(), test.top.mutable_cpu_diff());
      for (const auto& blob : test.layer->blobs()) caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
      test.layer->Backward({&test.top}, {true}, {&test.bottom});
      const string what = shape.name + ", engine " + FusedGroupConvolutionParameter::Engine_Name(engine);
      check_direction(&test, weights, &test.bottom, what + ", bottom");
      for (size_t b = 0; b < test.layer->blobs().size(); ++b) {
        check_direction(&test, weights, test.layer->blobs()[b].get(), what + ", blob " + std::to_string(b));
      }
    }
  }
}

/// With weights and inputs of -1 and 1, three of each in a sum, and even residuals, no output is near the ReLU's kink.
TYPED_TEST(FusedGroupConvolutionGradientTest, ExhaustiveGradientWithResidualAndRelu) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // as above
  GroupConvolutionShape shape = caffe_layers_test::parse_shape("signs 1x6x2x3 | 4 g2 | out i2");
  Blob<Dtype> residual(vector<int>{1, 4, 2, 3});
  fill_random(5, &residual);
  for (int i = 0; i < residual.count(); ++i) residual.mutable_cpu_data()[i] = residual.cpu_data()[i] > 0 ? 2 : 0;
  for (const bool relu : {false, true}) {
    shape.param.set_relu(relu);
    for (auto engine : {FusedGroupConvolutionParameter::REFERENCE, FusedGroupConvolutionParameter::DEFAULT}) {
      LayerUnderTest<Dtype> test(shape, engine);
      for (Blob<Dtype>* blob : {&test.bottom, test.layer->blobs()[0].get()}) {
        for (int i = 0; i < blob->count(); ++i) blob->mutable_cpu_data()[i] = blob->cpu_data()[i] > 0 ? 1 : -1;
      }
      EXPECT_TRUE(jacobian_is_right(test.layer.get(), {&test.bottom, &residual}, {&test.top}, 1e-2, 1e-3));
    }
  }
  omp_set_num_threads(threads);
}

/// With bottom_relu the bottom is positive, for what a ReLU keeps back has no derivative to find.
TYPED_TEST(FusedGroupConvolutionGradientTest, ExhaustiveGradientWithASecondTop) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);  // as above
  for (const char* line : {"block 2x4x3x4 | 4 g4 k3 p1 | 6 g2 i2 | out i2", "stride 1x4x5x4 | 4 g4 k3 s2 p1 | 2",
                           "pointwise 2x4x2x3 | 6 g2", "dense 1x9x4x4 | 9 k3 p1", "shortcut 1x4x4x4 | 4 g2 s2"}) {
    GroupConvolutionShape shape = caffe_layers_test::parse_shape(line);
    for (const bool relu : {false, true}) {
      shape.param.set_bottom_relu(relu);
      for (auto engine : {FusedGroupConvolutionParameter::REFERENCE, FusedGroupConvolutionParameter::DEFAULT}) {
        SCOPED_TRACE(line);
        LayerUnderTest<Dtype> test(shape, engine);
        Blob<Dtype> again;
        for (int i = 0; relu && i < test.bottom.count(); ++i) {
          test.bottom.mutable_cpu_data()[i] = std::abs(test.bottom.cpu_data()[i]) + 1;
        }
        EXPECT_TRUE(jacobian_is_right(test.layer.get(), {&test.bottom}, {&test.top, &again}, 1e-2, 2e-3));
      }
    }
  }
  omp_set_num_threads(threads);
}

}  // namespace caffe
