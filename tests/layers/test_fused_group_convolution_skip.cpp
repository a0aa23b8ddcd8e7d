// FusedGroupConvolution's second top, its input again for a skip connection, and bottom_relu: against a layer of one
// top, and in a net against Split, Eltwise and ReLU layers.
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "caffe_layers/fused_group_convolution_layer.hpp"
#include "device_test.hpp"
#include "layer_test.hpp"

namespace caffe {

using caffe_layers_test::expect_close;
using caffe_layers_test::fill_random;
using caffe_layers_test::rounding_tolerance;

template <typename TypeParam>
class FusedGroupConvolutionSkipTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  static shared_ptr<Layer<Dtype>> Block(const string& more = "") {
    return MakeLayer<Dtype>(
        "name: 'block' type: 'FusedGroupConvolution' fused_group_convolution_param { stage { num_output: 8 group: 8 "
        "kernel_size: 3 pad: 1 weight_filler { type: 'gaussian' std: 1 } } stage { num_output: 6 group: 2 "
        "weight_filler { type: 'gaussian' std: 1 } } " +
        more + "}");
  }

  /// The convolutions' gradient to `bottom`, from top's diff, by a layer of one top with the blobs of `layer`.
  static vector<Dtype> GradientAlone(const Layer<Dtype>& layer, const Blob<Dtype>& bottom, const Blob<Dtype>& top) {
    Blob<Dtype> x(bottom.shape()), y;
    x.CopyFrom(bottom);
    const auto alone = Block();
    alone->blobs() = const_cast<Layer<Dtype>&>(layer).blobs();
    alone->SetUp({&x}, {&y});
    alone->Forward({&x}, {&y});
    y.CopyFrom(top, true);
    alone->Backward({&y}, {true}, {&x});
    return {x.cpu_diff(), x.cpu_diff() + x.count()};
  }
};
TYPED_TEST_CASE(FusedGroupConvolutionSkipTest, TestDtypesAndDevices);

TYPED_TEST(FusedGroupConvolutionSkipTest, AddsTheSecondTopsGradient) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const string relu : {"", "bottom_relu: true "}) {
    for (const string engine : {"engine: DEFAULT ", "engine: REFERENCE "}) {
      for (const bool grown : {false, true}) {  // a blob that was larger once may not be given a smaller memory
        SCOPED_TRACE(relu + engine + (grown ? "grown" : ""));
        Blob<Dtype> bottom(vector<int>{grown ? 4 : 2, 8, 5, 7}), top, again;
        bottom.Reshape({2, 8, 5, 7});
        const auto layer = this->Block(relu + engine);
        layer->SetUp({&bottom}, {&top, &again});
        EXPECT_EQ(bottom.shape(), again.shape());
        for (int pass = 0; pass < 3; ++pass) {
          // A process may change to the GPU: the CPU's first pass has then put the two gradients into one memory.
          if (TypeParam::device == Caffe::GPU) Caffe::set_mode(pass == 0 ? Caffe::CPU : Caffe::GPU);
          fill_random(1 + pass, &bottom);
          layer->Forward({&bottom}, {&top, &again});
          EXPECT_EQ(bottom.data(), again.data()) << "no copy";
          Fill<Dtype>(&top, -1, 1, true);
          Fill<Dtype>(&again, -1, 1, true);
          vector<Dtype> expected = this->GradientAlone(*layer, bottom, top);
          for (int i = 0; i < bottom.count(); ++i) {
            expected[i] += again.cpu_diff()[i];
            if (!relu.empty() && !(bottom.cpu_data()[i] > 0)) expected[i] = 0;
          }
          layer->Backward({&top, &again}, {true}, {&bottom});
          expect_close(bottom.cpu_diff(), expected.data(), bottom.count(), rounding_tolerance<Dtype>(), "gradient");
          EXPECT_EQ(Caffe::mode() == Caffe::CPU && !grown, bottom.diff() == again.diff());
        }
      }
    }
  }
}

// Nobody writes the second top's gradient where it is one of the net's outputs or feeds an Accuracy layer only.
TYPED_TEST(FusedGroupConvolutionSkipTest, SecondTopWithoutGradientAddsNothing) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{2, 8, 5, 7}), top, unread;
  const auto layer = this->Block();
  layer->SetUp({&bottom}, {&top, &unread});
  for (int pass = 0; pass < 3; ++pass) {
    fill_random(1 + pass, &bottom);
    layer->Forward({&bottom}, {&top, &unread});
    Fill<Dtype>(&top, -1, 1, true);
    const vector<Dtype> expected = this->GradientAlone(*layer, bottom, top);
    layer->Backward({&top, &unread}, {true}, {&bottom});
    expect_close(bottom.cpu_diff(), expected.data(), bottom.count(), rounding_tolerance<Dtype>(), "gradient");
  }
}

// Two units, the second of another width with a convolution on its skip connection; the gradients that the units hand
// on pass through one memory.
TYPED_TEST(FusedGroupConvolutionSkipTest, UnitsEqualSplitEltwiseAndReLU) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const auto convolution = [](const string& name, const string& bottom, const string& tops, const string& more,
                              const string& param = "") {
    return "layer { name: '" + name + "' type: 'FusedGroupConvolution' bottom: '" + bottom + "' " + tops +
           " fused_group_convolution_param { stage { bias_term: false weight_filler { type: 'msra' } " + more + " } " +
           param + "} }";
  };
  const auto norm = [](const string& name, const string& bottoms, const string& top, const string& param) {
    return "layer { name: '" + name + "' type: 'FusedBatchNorm' " + bottoms + " top: '" + top +
           "' fused_batch_norm_param { " + param + " } }";
  };
  const string same = "num_output: 8 group: 8 kernel_size: 3 pad: 1",
               half = "num_output: 16 kernel_size: 3 pad: 1 stride: 2";
  const string input =
      "force_backward: true layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: [3, 8, 6, 8] } } }";
  const string skip = "relu: true relu_gradient: false", given = "bottom_relu: true ";
  const string fused =
      input + norm("n0", "bottom: 'x'", "z0", skip) + convolution("c1", "z0", "top: 'c1' top: 's0'", same, given) +
      norm("n1", "bottom: 'c1'", "c1", "relu: true") + convolution("c2", "c1", "top: 'c2'", same) +
      norm("n2", "bottom: 'c2' bottom: 's0'", "z1", skip) +
      convolution("c3", "z1", "top: 'c3' top: 's1'", half, given) + norm("n3", "bottom: 'c3'", "c3", "relu: true") +
      convolution("c4", "c3", "top: 'c4'", "num_output: 16 kernel_size: 3 pad: 1") +
      convolution("cs", "s1", "top: 'cs'", "num_output: 16 stride: 2") + norm("ns", "bottom: 'cs'", "cs", "") +
      norm("n4", "bottom: 'c4' bottom: 'cs'", "y", "relu: true");
  const string plain = input + norm("n0", "bottom: 'x'", "z0", "relu: true") +
                       convolution("c1", "z0", "top: 'c1'", same) + norm("n1", "bottom: 'c1'", "m1", "relu: true") +
                       convolution("c2", "m1", "top: 'c2'", same) + norm("n2", "bottom: 'c2'", "b2", "") +
                       "layer { name: 'a2' type: 'Eltwise' bottom: 'b2' bottom: 'z0' top: 'a2' }" +
                       "layer { name: 'r2' type: 'ReLU' bottom: 'a2' top: 'z1' }" +
                       convolution("c3", "z1", "top: 'c3'", half) + norm("n3", "bottom: 'c3'", "m3", "relu: true") +
                       convolution("c4", "m3", "top: 'c4'", "num_output: 16 kernel_size: 3 pad: 1") +
                       convolution("cs", "z1", "top: 'cs'", "num_output: 16 stride: 2") +
                       norm("ns", "bottom: 'cs'", "bs", "") + norm("n4", "bottom: 'c4'", "b4", "") +
                       "layer { name: 'a4' type: 'Eltwise' bottom: 'b4' bottom: 'bs' top: 'a4' }" +
                       "layer { name: 'r4' type: 'ReLU' bottom: 'a4' top: 'y' }";
  const auto make = [](const string& text) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param));
    return shared_ptr<Net<Dtype>>(new Net<Dtype>(param));
  };
  const auto ours = make(fused), stock = make(plain);
  ASSERT_EQ(stock->params().size(), ours->params().size());
  for (size_t p = 0; p < stock->params().size(); ++p) ours->params()[p]->CopyFrom(*stock->params()[p]);
  for (int pass = 0; pass < 3; ++pass) {
    Blob<Dtype> y_diff(stock->blob_by_name("y")->shape());
    Fill<Dtype>(&y_diff, -1, 1, true);
    for (const auto& net : {ours, stock}) {
      fill_random(1 + pass, net->blob_by_name("x").get());
      net->ClearParamDiffs();
      net->Forward();
      net->blob_by_name("y")->CopyFrom(y_diff, true);
      net->Backward();
    }
    ExpectNear(*stock->blob_by_name("y"), *ours->blob_by_name("y"), false, "y");
    ExpectNear(*stock->blob_by_name("x"), *ours->blob_by_name("x"), true, "gradient of x");
    for (size_t p = 0; p < stock->params().size(); ++p) {
      ExpectNear(*stock->params()[p], *ours->params()[p], true, "gradient of a parameter");
    }
  }
}

TEST(FusedGroupConvolutionSkipDeathTest, SecondTopMustBeABlobOfItsOwn) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  Blob<float> bottom(vector<int>{2, 8, 5, 7}), top;
  const auto layer = MakeLayer<float>(
      "name: 'block' type: 'FusedGroupConvolution' fused_group_convolution_param { stage { num_output: 8 } }");
  EXPECT_DEATH(layer->SetUp({&bottom}, {&top, &bottom}), "'block' .*second top is one of the bottoms");
}

}  // namespace caffe
