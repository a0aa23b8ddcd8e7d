#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe_layers/channel_permutation_layer.hpp"
#include "device_test.hpp"
#include "jacobian_check.hpp"

namespace caffe {

using caffe_layers_test::fill_random;

namespace {

LayerParameter layer_param(const string& permutation) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "name: 'perm' type: 'ChannelPermutation' channel_permutation_param { " + permutation + " }", &param));
  return param;
}

/// A permutation as a prototxt gives it, and what it must do to the channels.
struct Case {
  string text;
  vector<int> perm;
};

/// Figure 1: branches (0 1 2) and (3 4 5) become (0 3), (1 4), (2 5).
const vector<Case>& cases() {
  static const vector<Case> all = {{"", {0, 1, 2, 3, 4, 5}},
                                   {"interleave: 1", {0, 1, 2, 3, 4, 5}},
                                   {"interleave: 2", {0, 3, 1, 4, 2, 5}},
                                   {"interleave: 3", {0, 2, 4, 1, 3, 5}},
                                   {"interleave: 6", {0, 1, 2, 3, 4, 5}},
                                   {"interleave: 2 inverse: true", {0, 2, 4, 1, 3, 5}},
                                   {"index: [2, 0, 1, 5, 3, 4]", {2, 0, 1, 5, 3, 4}},
                                   {"index: [2, 0, 1, 5, 3, 4] inverse: true", {1, 2, 0, 4, 5, 3}}};
  return all;
}

const vector<vector<int>>& shapes() {
  static const vector<vector<int>> all = {{1, 6},       {3, 6},       {2, 6, 7},       {2, 6, 1, 1},
                                          {2, 6, 5, 7}, {1, 6, 8, 8}, {2, 6, 3, 5, 2}, {40, 6, 64, 64}};
  return all;
}

}  // namespace

template <typename TypeParam>
class ChannelPermutationLayerTest : public MultiDeviceTest<TypeParam> {};
TYPED_TEST_CASE(ChannelPermutationLayerTest, TestDtypesAndDevices);

TYPED_TEST(ChannelPermutationLayerTest, ForwardReordersChannels) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& c : cases()) {
    for (const vector<int>& shape : shapes()) {
      Blob<Dtype> bottom(shape), top;
      fill_random(1, &bottom);
      ChannelPermutationLayer<Dtype> layer(layer_param(c.text));
      layer.SetUp({&bottom}, {&top});
      ASSERT_EQ(shape, top.shape());
      layer.Forward({&bottom}, {&top});
      const int plane = bottom.count(2);
      for (int i = 0; i < top.count(); ++i) {
        const int n = i / (6 * plane), channel = i / plane % 6;
        ASSERT_EQ(bottom.cpu_data()[(n * 6 + c.perm[channel]) * plane + i % plane], top.cpu_data()[i])
            << c.text << ", shape " << bottom.shape_string() << ", value " << i;
      }
    }
  }
}

TYPED_TEST(ChannelPermutationLayerTest, BackwardOverwritesBottomDiff) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& c : cases()) {
    for (const vector<int>& shape : shapes()) {
      Blob<Dtype> bottom(shape), top;
      ChannelPermutationLayer<Dtype> layer(layer_param(c.text));
      layer.SetUp({&bottom}, {&top});
      for (int i = 0; i < top.count(); ++i) top.mutable_cpu_diff()[i] = i;
      caffe_set(bottom.count(), Dtype(-7), bottom.mutable_cpu_diff());
      layer.Backward({&top}, {false}, {&bottom});
      EXPECT_EQ(-7, bottom.cpu_diff()[0]) << "not asked for, yet written";
      layer.Backward({&top}, {true}, {&bottom});
      const int plane = top.count(2);
      for (int i = 0; i < top.count(); ++i) {
        const int n = i / (6 * plane), channel = i / plane % 6;
        ASSERT_EQ(i, bottom.cpu_diff()[(n * 6 + c.perm[channel]) * plane + i % plane])
            << c.text << ", shape " << bottom.shape_string();
      }
    }
  }
}

TYPED_TEST(ChannelPermutationLayerTest, Gradient) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const Case& c : cases()) {
    Blob<Dtype> bottom(vector<int>{2, 6, 2, 3}), top;
    fill_random(2, &bottom);
    ChannelPermutationLayer<Dtype> layer(layer_param(c.text));
    EXPECT_TRUE(caffe_layers_test::jacobian_is_right(&layer, {&bottom}, {&top}, 1e-2, 1e-3)) << c.text;
  }
}

TYPED_TEST(ChannelPermutationLayerTest, InverseUndoesThePermutation) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{2, 216, 3, 3}), middle, top;
  fill_random(3, &bottom);
  ChannelPermutationLayer<Dtype> there(layer_param("interleave: 27")),
      back(layer_param("interleave: 27 inverse: true"));
  there.SetUp({&bottom}, {&middle});
  back.SetUp({&middle}, {&top});
  there.Forward({&bottom}, {&middle});
  back.Forward({&middle}, {&top});
  EXPECT_NE(bottom.cpu_data()[9], middle.cpu_data()[9]);
  for (int i = 0; i < bottom.count(); ++i) ASSERT_EQ(bottom.cpu_data()[i], top.cpu_data()[i]);
}

TYPED_TEST(ChannelPermutationLayerTest, FollowsReshapes) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> bottom(vector<int>{1, 6, 2}), top;
  ChannelPermutationLayer<Dtype> layer(layer_param("interleave: 2"));
  layer.SetUp({&bottom}, {&top});
  bottom.Reshape({3, 4, 5, 1});
  fill_random(4, &bottom);
  layer.Reshape({&bottom}, {&top});
  layer.Forward({&bottom}, {&top});
  EXPECT_EQ(bottom.shape(), top.shape());
  EXPECT_EQ(bottom.cpu_data()[2 * 5], top.cpu_data()[1 * 5]);  // interleave 2 of 4 channels: 0 2 1 3
  EXPECT_EQ(bottom.cpu_data()[9 * 5 + 4], top.cpu_data()[10 * 5 + 4]);
}

TEST(ChannelPermutationLayerDeathTest, NamesLayerEntryAndChannels) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const vector<std::pair<string, string>> bad = {
      {"interleave: 4", "'perm' .*interleave is 4: must be .* divides C = 6"},
      {"interleave: 0", "'perm' .*interleave is 0"},
      {"interleave: 4294967295", "'perm' .*interleave is 4294967295"},
      {"index: [0, 1, 2, 3, 6, 7]", "'perm' .*index entry 4 is 6: each of 0 .. 5 must appear once .C = 6."},
      {"index: [0, 1, 2, 1, 2, 5]", "'perm' .*index entry 3 is 1, as entry 1 is: each of 0 .. 5"},
      {"index: [0, 1, 2, 3, 4294967295, 5]", "'perm' .*index entry 4 is 4294967295:"},
      {"index: [0, 1, 2]", "'perm' .*index ends before entry 3: .*C = 6"},
      {"index: [0, 1, 2, 3, 4, 5, 0]", "'perm' .*index entry 6 is 0, as entry 0 is: .*C = 6"},
      {"interleave: 2 index: [0, 1]", "'perm' .*interleave is 2 and index has 2 entries: give one of the two"}};
  Blob<float> bottom(vector<int>{2, 6, 3, 3}), top;
  for (const auto& c : bad) {
    ChannelPermutationLayer<float> layer(layer_param(c.first));
    EXPECT_DEATH(layer.SetUp({&bottom}, {&top}), c.second) << c.first;
  }
  ChannelPermutationLayer<float> in_place(layer_param("interleave: 2"));
  EXPECT_DEATH(in_place.SetUp({&bottom}, {&bottom}), "'perm' .*cannot work in place");
  Blob<float> flat(vector<int>(1, 6));
  EXPECT_DEATH(in_place.SetUp({&flat}, {&top}), "'perm' .*must have at least two axes");
  Blob<float> empty(vector<int>{2, 6, 0});
  EXPECT_DEATH(in_place.SetUp({&empty}, {&top}), "'perm' .*shape 2 6 0 .0.: must not be empty");
}

}  // namespace caffe
