// The stream of AugmentedData: which records come when, and what the place in it survives.
#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "augmented_data_fixture.hpp"
#include "device_test.hpp"

namespace caffe_layers_test {
namespace {

std::vector<int> zero_to(int n) {
  std::vector<int> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

template <typename TypeParam>
class AugmentedDataLayerTest : public caffe::MultiDeviceTest<TypeParam> {
 protected:
  using Dtype = typename TypeParam::Dtype;
  using Layer = LayerUnderTest<Dtype>;

  static constexpr int kRecords = 50;
  void SetUp() override { write_lmdb(source(), numbered_images(kRecords)); }
  void TearDown() override {
    caffe::Caffe::set_solver_count(1);
    caffe::Caffe::set_solver_rank(0);
  }
  std::string source() const { return folder_.path() + "/lmdb"; }

  TemporaryFolder folder_;
  const std::string random_ = "crop_size: 8 pad: 2 mirror: true seed: 3 ";
};

TYPED_TEST_CASE(AugmentedDataLayerTest, caffe::TestDtypesAndDevices);

TYPED_TEST(AugmentedDataLayerTest, TestPhaseReadsEveryRecordOnceInOrder) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer layer(this->source(), "batch_size: 10 threads: 3 " + this->random_, caffe::TEST);
  EXPECT_EQ(layer.Next(5), zero_to(50));
  EXPECT_EQ(layer.Next(5), zero_to(50));  // and again
}

TYPED_TEST(AugmentedDataLayerTest, EveryEpochHasEachRecordOnceInAnOrderOfItsOwn) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer layer(this->source(), "batch_size: 8 threads: 2 " + this->random_);
  const std::vector<int> stream = layer.Next(50);  // 8 epochs; batches run across their ends
  std::set<std::vector<int>> orders;
  for (int epoch = 0; epoch < 8; ++epoch) {
    std::vector<int> seen(stream.begin() + 50 * epoch, stream.begin() + 50 * (epoch + 1));
    orders.insert(seen);
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, zero_to(50)) << "epoch " << epoch;
  }
  EXPECT_EQ(orders.size(), 8u);
}

TYPED_TEST(AugmentedDataLayerTest, WithoutShuffleTheOrderIsThatOfTheKeys) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer layer(this->source(), "batch_size: 25 shuffle: false");
  EXPECT_EQ(layer.Next(2), zero_to(50));
}

TYPED_TEST(AugmentedDataLayerTest, ABatchMayBeLargerThanTheDataSet) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer layer(this->source(), "batch_size: 125");
  std::vector<int> counts(50);
  for (int label : layer.Next(2)) ++counts[label];
  EXPECT_EQ(counts, std::vector<int>(50, 5));
}

TYPED_TEST(AugmentedDataLayerTest, ThreadsAndPrefetchChangeNothing) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer one(this->source(), "batch_size: 7 threads: 1 prefetch: 1 " + this->random_);
  typename TestFixture::Layer many(this->source(), "batch_size: 7 threads: 5 prefetch: 9 " + this->random_);
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(one.Next(), many.Next());
    ASSERT_EQ(one.pixels(), many.pixels());
  }
}

TYPED_TEST(AugmentedDataLayerTest, TheSeedChangesOrderAndPixels) {
  SKIP_WITHOUT_DEVICE();
  const std::string fields = "batch_size: 50 crop_size: 8 pad: 2 mirror: true ";
  typename TestFixture::Layer a(this->source(), fields + "seed: 1"), b(this->source(), fields + "seed: 2");
  EXPECT_NE(a.Next(), b.Next());
  typename TestFixture::Layer c(this->source(), fields + "seed: 1 shuffle: false"),
      d(this->source(), fields + "seed: 2 shuffle: false");
  EXPECT_EQ(c.Next(), d.Next());
  EXPECT_NE(c.pixels(), d.pixels());
}

// The blob alone makes a new layer, or one elsewhere in the stream, go on exactly where another one was.
TYPED_TEST(AugmentedDataLayerTest, TheBlobIsThePlaceInTheStream) {
  SKIP_WITHOUT_DEVICE();
  const std::string fields = "batch_size: 7 threads: 2 " + this->random_;
  typename TestFixture::Layer original(this->source(), fields);
  original.Next(20);
  caffe::BlobProto snapshot;
  original.state().ToProto(&snapshot);
  typename TestFixture::Layer fresh(this->source(), fields), elsewhere(this->source(), fields);
  elsewhere.Next(3);
  fresh.state().FromProto(snapshot);
  elsewhere.state().FromProto(snapshot);
  for (int i = 0; i < 20; ++i) {
    const std::vector<int> labels = original.Next();
    ASSERT_EQ(labels, fresh.Next());
    ASSERT_EQ(labels, elsewhere.Next());
    ASSERT_EQ(original.pixels(), fresh.pixels());
    ASSERT_EQ(original.pixels(), elsewhere.pixels());
  }
}

TYPED_TEST(AugmentedDataLayerTest, ThePlaceStaysExactBeyondWhatOneFloatHolds) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer layer(this->source(), "batch_size: 1 shuffle: false");
  const uint64_t far = (uint64_t{123} << 24) + 0xffffff;
  layer.state().mutable_cpu_data()[0] = 0xffffff;
  layer.state().mutable_cpu_data()[1] = 123;
  EXPECT_EQ(layer.Next()[0], static_cast<int>(far % 50));
  EXPECT_EQ(layer.Next()[0], static_cast<int>((far + 1) % 50));
  EXPECT_EQ(layer.state().cpu_data()[0], 1);
  EXPECT_EQ(layer.state().cpu_data()[1], 124);
}

// Together the ranks draw what one solver with the joint batch draws, whatever divides what.
TYPED_TEST(AugmentedDataLayerTest, RanksShareEachEpoch) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer whole(this->source(), "batch_size: 21 " + this->random_);
  std::vector<std::unique_ptr<typename TestFixture::Layer>> ranks;
  caffe::Caffe::set_solver_count(3);
  for (int rank = 0; rank < 3; ++rank) {
    caffe::Caffe::set_solver_rank(rank);
    ranks.push_back(std::make_unique<typename TestFixture::Layer>(this->source(), "batch_size: 7 " + this->random_));
  }
  std::vector<int> drawn(50);
  for (int i = 0; i < 50; ++i) {  // 50 * 21 records are 21 epochs
    std::vector<int> labels;
    std::vector<typename TestFixture::Dtype> pixels;
    for (auto& rank : ranks) {
      for (int label : rank->Next()) labels.push_back(label);
      for (auto pixel : rank->pixels()) pixels.push_back(pixel);
      EXPECT_EQ(rank->state().cpu_data()[0], 21 * (i + 1));  // any rank's snapshot serves all
    }
    ASSERT_EQ(labels, whole.Next());
    ASSERT_EQ(pixels, whole.pixels());
    for (int label : labels) ++drawn[label];
    const auto [least, most] = std::minmax_element(drawn.begin(), drawn.end());
    ASSERT_LE(*most - *least, 1);  // nobody is drawn twice in an epoch
  }
  EXPECT_EQ(drawn, std::vector<int>(50, 21));
}

TYPED_TEST(AugmentedDataLayerTest, TheTestPhaseIgnoresRanks) {
  SKIP_WITHOUT_DEVICE();
  caffe::Caffe::set_solver_count(3);
  typename TestFixture::Layer layer(this->source(), "batch_size: 10", caffe::TEST);
  EXPECT_EQ(layer.Next(5), zero_to(50));
}

// The solver shares the training net's blob with the layer of the same name in the test net.
TYPED_TEST(AugmentedDataLayerTest, ATestPassStartsAtTheFirstRecordOnceTrainingMovedOn) {
  SKIP_WITHOUT_DEVICE();
  typename TestFixture::Layer train(this->source(), "batch_size: 7"),
      test(this->source(), "batch_size: 8", caffe::TEST);
  test.state().ShareData(train.state());
  const std::vector<int> first_pass = test.Next(3);
  EXPECT_EQ(first_pass, zero_to(24));
  train.Next();
  EXPECT_EQ(test.Next(3), first_pass);
  EXPECT_EQ(train.state().cpu_data()[0], 7);  // testing leaves the training's place alone
}

TYPED_TEST(AugmentedDataLayerTest, LabelsAreOptional) {
  SKIP_WITHOUT_DEVICE();
  caffe::LayerParameter param;
  param.set_phase(caffe::TEST);
  param.mutable_augmented_data_param()->set_source(this->source());
  param.mutable_augmented_data_param()->set_batch_size(5);
  caffe::AugmentedDataLayer<typename TestFixture::Dtype> layer(param);
  caffe::Blob<typename TestFixture::Dtype> data;
  layer.SetUp({}, {&data});
  layer.Forward({}, {&data});
  EXPECT_EQ(data.shape(), (std::vector<int>{5, 3, 8, 8}));
}

TYPED_TEST(AugmentedDataLayerTest, ANetNeitherLearnsThePlaceNorSendsGradientsToTheData) {
  SKIP_WITHOUT_DEVICE();
  caffe::NetParameter param;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "state { phase: TRAIN }"
      "layer { name: 'data' type: 'AugmentedData' top: 'data' top: 'label'"
      "  augmented_data_param { batch_size: 4 source: '" +
          this->source() +
          "' } }"
          "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip' inner_product_param { num_output: 50 } }"
          "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' }",
      &param));
  caffe::Net<typename TestFixture::Dtype> net(param);
  EXPECT_FALSE(net.bottom_need_backward()[1][0]);
  EXPECT_FALSE(net.layer_need_backward()[0]);
  EXPECT_EQ(net.params_lr()[0], 0);
  EXPECT_EQ(net.params_weight_decay()[0], 0);
  net.ForwardBackward();
}

}  // namespace
}  // namespace caffe_layers_test
