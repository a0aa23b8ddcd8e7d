// What FusedGroupConvolution does beyond computing: parameters and their blobs, errors, reshapes, sharing,
// accumulation.
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe/net.hpp"
#include "caffe_layers/fused_group_convolution_layer.hpp"
#include "device_test.hpp"

namespace caffe {

using caffe_layers_test::expect_close;
using caffe_layers_test::fill_random;
using caffe_layers_test::rounding_tolerance;

namespace {

const char* const kBlock =
    "stage { num_output: 8 group: 8 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: 'gaussian' std: 1 } }"
    "stage { num_output: 12 group: 4 weight_filler { type: 'gaussian' std: 1 } bias_filler { type: 'constant' value: 2 "
    "} }"
    "stage { num_output: 6 group: 2 bias_term: false weight_filler { type: 'xavier' } permutation { interleave: 4 } }"
    "output_permutation { interleave: 2 inverse: true }";

LayerParameter layer_param(const string& fields) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "name: 'block' type: 'FusedGroupConvolution' fused_group_convolution_param { " + fields + " }", &param));
  return param;
}

}  // namespace

template <typename TypeParam>
class FusedGroupConvolutionLayerTest : public MultiDeviceTest<TypeParam> {};
TYPED_TEST_CASE(FusedGroupConvolutionLayerTest, TestDtypesAndDevices);

TYPED_TEST(FusedGroupConvolutionLayerTest, HoldsTheBlobsOfStockConvolutions) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{2, 8, 5, 7}), top;
  FusedGroupConvolutionLayer<Dtype> layer(layer_param(kBlock));
  layer.SetUp({&bottom}, {&top});
  EXPECT_EQ(vector<int>({2, 6, 5, 7}), top.shape());
  const vector<vector<int>> shapes = {{8, 1, 3, 3}, {12, 2, 1, 1}, {12}, {6, 6, 1, 1}};
  ASSERT_EQ(shapes.size(), layer.blobs().size());
  for (size_t b = 0; b < shapes.size(); ++b) EXPECT_EQ(shapes[b], layer.blobs()[b]->shape());
  EXPECT_EQ(2, layer.blobs()[2]->cpu_data()[11]);
}

TYPED_TEST(FusedGroupConvolutionLayerTest, FillersSeeTheFanInOfOneGroup) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{1, 256, 1, 1}), top;
  FusedGroupConvolutionLayer<Dtype> layer(
      layer_param("stage { num_output: 512 group: 64 kernel_size: 3 pad: 1 weight_filler { type: 'msra' } }"
                  "stage { num_output: 1024 group: 8 weight_filler { type: 'msra' } }"));
  layer.SetUp({&bottom}, {&top});
  const double fan_in[] = {4 * 9, 64};
  for (int s = 0; s < 2; ++s) {
    const Blob<Dtype>& weight = *layer.blobs()[2 * s];
    EXPECT_NEAR(2 / fan_in[s], weight.sumsq_data() / weight.count(), 0.1 / fan_in[s]) << "stage " << s + 1;
  }
}

TYPED_TEST(FusedGroupConvolutionLayerTest, FollowsReshapes) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{2, 8, 6, 6}), top, fresh_top;
  FusedGroupConvolutionLayer<Dtype> layer(layer_param(kBlock));
  layer.SetUp({&bottom}, {&top});
  for (const vector<int>& shape :
       {vector<int>{2, 8, 6, 6}, {5, 8, 16, 9}, {1, 8, 1, 1}, {3, 8, 32, 32}, {2, 8, 6, 6}}) {
    bottom.Reshape(shape);
    fill_random(1, &bottom);
    layer.Reshape({&bottom}, {&top});
    layer.Forward({&bottom}, {&top});
    FusedGroupConvolutionLayer<Dtype> fresh(layer_param(kBlock));
    fresh.SetUp({&bottom}, {&fresh_top});
    for (size_t b = 0; b < layer.blobs().size(); ++b) fresh.blobs()[b]->CopyFrom(*layer.blobs()[b]);
    layer.Forward({&bottom}, {&top});
    fresh.Forward({&bottom}, {&fresh_top});
    ASSERT_EQ(fresh_top.shape(), top.shape());
    expect_close(top.cpu_data(), fresh_top.cpu_data(), top.count(), 0, "top after reshape to " + bottom.shape_string());
    vector<Dtype> diffs[2];
    for (auto* subject : {&layer, &fresh}) {
      caffe_copy(top.count(), fresh_top.cpu_data(), top.mutable_cpu_diff());
      for (const auto& blob : subject->blobs()) caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
      subject->Backward({&top}, {true}, {&bottom});
      vector<Dtype>& all = diffs[subject == &fresh];
      all.assign(bottom.cpu_diff(), bottom.cpu_diff() + bottom.count());
      for (const auto& blob : subject->blobs())
        all.insert(all.end(), blob->cpu_diff(), blob->cpu_diff() + blob->count());
    }
    expect_close(diffs[0].data(), diffs[1].data(), diffs[0].size(), 0, "gradients after " + bottom.shape_string());
  }
}

TYPED_TEST(FusedGroupConvolutionLayerTest, BackwardFollowsAForwardOnTheCpu) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const Caffe::Brew mode = Caffe::mode();
  Caffe::set_mode(Caffe::CPU);
  Blob<Dtype> bottom(vector<int>{2, 8, 5, 7}), top, expected;
  fill_random(1, &bottom);
  FusedGroupConvolutionLayer<Dtype> layer(layer_param(kBlock));
  layer.SetUp({&bottom}, {&top});
  layer.Forward({&bottom}, {&top});
  caffe_copy(top.count(), top.cpu_data(), top.mutable_cpu_diff());
  layer.Backward({&top}, {true}, {&bottom});
  expected.CopyFrom(bottom, true, true);
  Caffe::set_mode(mode);
  layer.Backward({&top}, {true}, {&bottom});
  expect_close(bottom.cpu_diff(), expected.cpu_diff(), bottom.count(), rounding_tolerance<Dtype>(), "gradient");
}

TYPED_TEST(FusedGroupConvolutionLayerTest, GivesOnlyTheGradientsAskedForAndAddsToParameterDiffs) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{2, 8, 5, 7}), top;
  fill_random(1, &bottom);
  FusedGroupConvolutionLayer<Dtype> layer(layer_param(kBlock));
  layer.SetUp({&bottom}, {&top});
  const int blobs = layer.blobs().size();
  vector<vector<Dtype>> all;  // gradients with everything asked for: the bottom's, then the parameters'
  for (int asked = (2 << blobs) - 1; asked >= 0; --asked) {
    vector<Blob<Dtype>*> targets = {&bottom};
    for (int b = 0; b < blobs; ++b) {
      targets.push_back(layer.blobs()[b].get());
      layer.set_param_propagate_down(b, asked >> (b + 1) & 1);
    }
    layer.Forward({&bottom}, {&top});
    caffe_copy(top.count(), top.cpu_data(), top.mutable_cpu_diff());
    for (Blob<Dtype>* target : targets) caffe_set(target->count(), Dtype(5), target->mutable_cpu_diff());
    layer.Backward({&top}, {(asked & 1) != 0}, {&bottom});
    for (int t = 0; t <= blobs; ++t) {
      vector<Dtype> diff(targets[t]->cpu_diff(), targets[t]->cpu_diff() + targets[t]->count());
      if (t > 0) {
        for (Dtype& value : diff) value -= 5;
      }
      if (all.size() <= size_t(blobs)) {
        all.push_back(diff);
        EXPECT_GT(targets[t]->sumsq_diff(), 0);
      } else if (asked >> t & 1) {
        expect_close(diff.data(), all[t].data(), diff.size(), rounding_tolerance<Dtype>(),
                     "asked " + std::to_string(asked));
      } else {
        for (const Dtype value : diff) ASSERT_EQ(t > 0 ? 0 : 5, value) << "not asked for, yet written";
      }
    }
  }
}

TYPED_TEST(FusedGroupConvolutionLayerTest, SharesWeightsByName) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  const string stages =
      " fused_group_convolution_param { stage { num_output: 4 group: 4 kernel_size: 3 pad: 1 bias_term: false"
      " weight_filler { type: 'gaussian' std: 1 } } stage { num_output: 4 group: 2 bias_term: false"
      " weight_filler { type: 'gaussian' std: 1 } permutation { interleave: 2 } } }";
  const auto make_net = [&](const string& first, const string& second) {
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "force_backward: true layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: [2, 4, 5, 6] } } }"
        "layer { name: 'a' type: 'FusedGroupConvolution' bottom: 'x' top: 'a' " +
            first + stages + " }" + "layer { name: 'b' type: 'FusedGroupConvolution' bottom: 'a' top: 'b' " + second +
            stages + " }",
        &param));
    shared_ptr<Net<Dtype>> net(new Net<Dtype>(param));
    fill_random(1, net->blob_by_name("x").get());
    return net;
  };
  const auto run = [](Net<Dtype>* net) {
    net->ClearParamDiffs();
    net->Forward();
    fill_random(2, net->blob_by_name("b").get());
    caffe_copy(net->blob_by_name("b")->count(), net->blob_by_name("b")->cpu_data(),
               net->blob_by_name("b")->mutable_cpu_diff());
    net->Backward();
  };
  const auto shared =
      make_net("param { name: 'dw' } param { name: 'pw' }", "param { name: 'dw' } param { name: 'pw' }");
  const auto separate = make_net("", "");
  ASSERT_EQ(2u, shared->learnable_params().size());
  ASSERT_EQ(4u, separate->learnable_params().size());
  for (int b = 0; b < 4; ++b) separate->learnable_params()[b]->CopyFrom(*shared->learnable_params()[b % 2]);
  run(shared.get());
  run(separate.get());
  for (int b = 0; b < 2; ++b) {
    Blob<Dtype>* sum = separate->learnable_params()[b];
    caffe_axpy(sum->count(), Dtype(1), separate->learnable_params()[b + 2]->cpu_diff(), sum->mutable_cpu_diff());
    const Blob<Dtype>* diff = shared->learnable_params()[b];
    expect_close(diff->cpu_diff(), sum->cpu_diff(), sum->count(), rounding_tolerance<Dtype>(), "shared blob");
  }
}

TEST(FusedGroupConvolutionLayerDeathTest, NamesLayerStageFieldValueAndRemedy) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string dw = "stage { num_output: 12 group: 12 kernel_size: 3 pad: 1 } ";
  const vector<std::pair<string, string>> bad = {
      {"", "'block' .*fused_group_convolution_param has 0 stages: give at least one"},
      {"stage { group: 2 }", "'block' .*stage 1 of 1: num_output is 0: must be at least 1"},
      {"stage { num_output: 12 group: 5 }", "'block' .*stage 1 of 1: group is 5: must divide .* 12 input channels"},
      {"stage { num_output: 10 group: 4 }", "stage 1 of 1: group is 4: must divide the stage's num_output 10"},
      {dw + "stage { num_output: 10 group: 5 }",
       "'block' .*stage 2 of 2: group is 5: must divide .* 12 input channels "
       ".its input is the output of stage 1"},
      {"stage { num_output: 12 group: 0 }", "stage 1 of 1: group is 0: must be at least 1"},
      {"stage { num_output: 4000000000 }", "stage 1 of 1: num_output is 4000000000: must be .* below 2.29"},
      {"stage { num_output: 12 kernel_size: 2 }", "stage 1 of 1: kernel_size is 2: must be odd"},
      {"stage { num_output: 12 kernel_size: 0 }", "stage 1 of 1: kernel_size is 0: must be at least 1"},
      {"stage { num_output: 12 stride: 0 }", "stage 1 of 1: stride is 0: must be at least 1"},
      {"stage { num_output: 12 stride: 2147483647 pad: 2 }",
       "stage 1 of 1: stride is 2147483647: must be .* below 2.29"},
      {"stage { num_output: 12 dilation: 0 }", "stage 1 of 1: dilation is 0: must be at least 1"},
      {"stage { num_output: 12 pad: 4000000000 }", "stage 1 of 1: pad is 4000000000: must be below"},
      {"stage { num_output: 12 kernel_size: 7 }",
       "stage 1 of 1: output height is 0: kernel_size 7 with dilation 1 spans "
       "7, but the input's height is 4 and pad 0; pad must be at least 2"},
      {dw + "stage { num_output: 6 kernel_size: 3 dilation: 2 }",
       "stage 2 of 2: output height is 0: .* spans 5.*pad must "
       "be at least 1 .its input is the output of stage 1"},
      {"stage { num_output: 4 permutation { interleave: 5 } }", "stage 1 of 1: permutation.interleave is 5: .*C = 12"},
      {dw + "stage { num_output: 4 permutation { index: [0, 0] } }",
       "stage 2 of 2: permutation.index entry 1 is 0, as"},
      {dw + "output_permutation { interleave: 5 }", "'block' .*output_permutation.interleave is 5: .*C = 12"},
      {dw + "stage { num_output: 12 pad: 536870000 }",
       "stage 2 of 2: output height x width is [0-9]+: must be below 2.31 .its input"},
      {"stage { num_output: 12 kernel_size: 46341 pad: 30000 }", "stage 1 of 1: kernel_size x kernel_size is 21474"},
      {"stage { num_output: 500000000 }", "stage 1 of 1: number of weights is 6000000000: must be below 2.31"},
      {"stage { num_output: 100000000 }", "'block' .*values of an output image is 2400000000: must be below 2.31"},
      {"stage { num_output: 48000000 }", "'block' .*number of values of the output is 2304000000: must be below"}};
  Blob<float> bottom(vector<int>{2, 12, 4, 6}), top;
  for (const auto& c : bad) {
    FusedGroupConvolutionLayer<float> layer(layer_param(c.first));
    EXPECT_DEATH(layer.SetUp({&bottom}, {&top}), c.second) << c.first;
  }
}

TEST(FusedGroupConvolutionLayerDeathTest, NamesLayerAndShapeOfWrongBlobs) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const string dw = "stage { num_output: 12 group: 12 kernel_size: 3 pad: 1 }";
  Blob<float> bottom(vector<int>{2, 12, 4, 6}), other(vector<int>{2, 6, 4, 6}), flat(vector<int>{2, 12}), top;
  FusedGroupConvolutionLayer<float> layer(layer_param(dw));
  EXPECT_DEATH(layer.SetUp({&bottom}, {&bottom}), "'block' .*cannot work in place");
  EXPECT_DEATH(layer.SetUp({&flat}, {&top}), "'block' .*bottom has shape 2 12 .24.: must be N x C x H x W");
  layer.SetUp({&bottom}, {&top});
  EXPECT_DEATH(layer.Reshape({&other}, {&top}), "'block' .*bottom has 6 channels");
  EXPECT_DEATH(layer.Reshape({&bottom, &top}, {&top}), "'block' .*top and residual are the same blob");
  EXPECT_DEATH(layer.Reshape({&bottom, &other}, {&top}),
               "'block' .*residual has shape 2 6 4 6 .288.: must be that of the top, 2 12 4 6 .576.");
  LayerParameter with_blobs = layer_param(dw);
  layer.blobs()[1]->ToProto(with_blobs.add_blobs());
  EXPECT_DEATH(FusedGroupConvolutionLayer<float>(with_blobs).SetUp({&bottom}, {&top}),
               "'block' .*has 1 parameter blobs: must be 2: of each stage the weights");
  layer.blobs()[1]->ToProto(with_blobs.add_blobs());
  EXPECT_DEATH(FusedGroupConvolutionLayer<float>(with_blobs).SetUp({&bottom}, {&top}),
               "'block' .*parameter blob 0 has shape 12 .12.: must be 12 1 3 3 .108.");
}

}  // namespace caffe
