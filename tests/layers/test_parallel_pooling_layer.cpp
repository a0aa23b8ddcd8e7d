// Pooling as the factory makes it, beside Caffe's own (engine: CAFFE).
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe_layers/parallel_pooling_layer.hpp"
#include "device_test.hpp"
#include "jacobian_check.hpp"

namespace caffe {

using caffe_layers_test::fill_random;

namespace {

template <typename Dtype>
shared_ptr<Layer<Dtype>> pooling(const string& param) {
  LayerParameter layer;
  CHECK(google::protobuf::TextFormat::ParseFromString("name: 'pool' type: 'Pooling' pooling_param { " + param + " }",
                                                      &layer));
  return LayerRegistry<Dtype>::CreateLayer(layer);
}

/// Sets the layer up, and leaves its results in top's data and bottom's diff.
template <typename Dtype>
void run(const shared_ptr<Layer<Dtype>>& layer, Blob<Dtype>* bottom, Blob<Dtype>* top) {
  const vector<Blob<Dtype>*> bottoms = {bottom}, tops = {top};
  layer->SetUp(bottoms, tops);
  layer->Forward(bottoms, tops);
  for (int i = 0; i < top->count(); ++i) top->mutable_cpu_diff()[i] = Dtype(i % 7 - 3);
  caffe_set(bottom->count(), Dtype(9), bottom->mutable_cpu_diff());  // must be overwritten
  layer->Backward(tops, {true}, bottoms);
}

const vector<vector<int>>& shapes() {
  static const vector<vector<int>> all = {{1, 1, 1, 1}, {2, 3, 5, 7},   {3, 5, 1, 9},   {64, 256, 8, 8},
                                          {1, 7, 8, 8}, {2, 6, 13, 13}, {3, 4, 64, 64}, {1, 4, 64, 64}};
  return all;
}

}  // namespace

template <typename Dtype>
class ParallelPoolingLayerTest : public CPUDeviceTest<Dtype> {};
TYPED_TEST_CASE(ParallelPoolingLayerTest, TestDtypes);

TYPED_TEST(ParallelPoolingLayerTest, TestGlobalAverageIsCaffes) {
  for (const vector<int>& shape : shapes()) {
    Blob<TypeParam> bottom(shape), stock_bottom(shape), top, stock_top;
    fill_random(1, &bottom);
    stock_bottom.CopyFrom(bottom);
    const auto ours = pooling<TypeParam>("pool: AVE global_pooling: true");
    ASSERT_TRUE(dynamic_cast<ParallelPoolingLayer<TypeParam>*>(ours.get()));
    run(ours, &bottom, &top);
    run(pooling<TypeParam>("pool: AVE global_pooling: true engine: CAFFE"), &stock_bottom, &stock_top);
    ASSERT_EQ(stock_top.shape(), top.shape());
    for (int i = 0; i < top.count(); ++i) ASSERT_NEAR(stock_top.cpu_data()[i], top.cpu_data()[i], 1e-6) << i;
    for (int i = 0; i < bottom.count(); ++i) {
      ASSERT_FLOAT_EQ(stock_bottom.cpu_diff()[i], bottom.cpu_diff()[i]) << i;
    }
  }
}

TYPED_TEST(ParallelPoolingLayerTest, TestOtherPoolingStaysCaffes) {
  const vector<string> params = {"pool: MAX kernel_size: 3 stride: 2", "pool: AVE kernel_size: 3 stride: 2 pad: 1",
                                 "pool: MAX global_pooling: true"};
  const vector<int> shape = {2, 3, 7, 9};
  for (const string& param : params) {
    Blob<TypeParam> bottom(shape), stock_bottom(shape), top, stock_top;
    fill_random(1, &bottom);
    stock_bottom.CopyFrom(bottom);
    run(pooling<TypeParam>(param), &bottom, &top);
    run(pooling<TypeParam>(param + " engine: CAFFE"), &stock_bottom, &stock_top);
    for (int i = 0; i < top.count(); ++i) ASSERT_EQ(stock_top.cpu_data()[i], top.cpu_data()[i]) << param;
    for (int i = 0; i < bottom.count(); ++i) ASSERT_EQ(stock_bottom.cpu_diff()[i], bottom.cpu_diff()[i]) << param;
  }
}

TYPED_TEST(ParallelPoolingLayerTest, TestGradient) {
  for (const vector<int>& shape : {vector<int>{2, 3, 5, 7}, vector<int>{1, 2, 8, 8}}) {
    Blob<TypeParam> bottom(shape), top;
    fill_random(1, &bottom);
    const auto layer = pooling<TypeParam>("pool: AVE global_pooling: true");
    EXPECT_TRUE(caffe_layers_test::jacobian_is_right(layer.get(), {&bottom}, {&top}, 1e-2, 1e-3));
  }
}

}  // namespace caffe
