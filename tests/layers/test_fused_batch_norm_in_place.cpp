// FusedBatchNorm in place against itself with a top of its own: where memory for y comes from.
#include <vector>

#include "caffe/test/test_caffe_main.hpp"
#include "device_test.hpp"
#include "layer_test.hpp"

namespace caffe {

template <typename TypeParam>
class FusedBatchNormInPlaceTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef typename TypeParam::Dtype Dtype;

  FusedBatchNormInPlaceTest()
      : x_(4, 3, 5, 5),
        copy_(4, 3, 5, 5),
        in_place_(MakeLayer<Dtype>("type: 'FusedBatchNorm'")),
        apart_(MakeLayer<Dtype>("type: 'FusedBatchNorm'")) {
    in_place_->SetUp({&x_}, {&x_});
    apart_->SetUp({&copy_}, {&top_});
  }

  /// Both on the values that x_ has.
  void Compare() {
    copy_.ReshapeLike(x_);
    copy_.CopyFrom(x_);
    in_place_->Forward({&x_}, {&x_});
    apart_->Forward({&copy_}, {&top_});
    Fill<Dtype>(&top_, -1, 1, true);
    x_.CopyFrom(top_, true);
    in_place_->Backward({&x_}, {true}, {&x_});
    apart_->Backward({&top_}, {true}, {&copy_});
    ExpectNear(top_, x_, false, "top");
    ExpectNear(copy_, x_, true, "gradient of x");
  }

  Blob<Dtype> x_, copy_, top_;
  shared_ptr<Layer<Dtype>> in_place_, apart_;
};

TYPED_TEST_CASE(FusedBatchNormInPlaceTest, TestDtypesAndDevices);

// The blob grows and shrinks between its turns with the layer: the exchanged memory must stay large enough.
TYPED_TEST(FusedBatchNormInPlaceTest, TestReshape) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const int num : {4, 2, 6, 1, 5, 6, 7}) {
    this->x_.Reshape({num + 2, 3, 5, 5});
    this->x_.Reshape({num, 3, 5, 5});
    Fill<Dtype>(&this->x_, 1, 2);
    this->Compare();
  }
}

// Between passes that write into the blob, as most layers do, no memory is added to the two.
TYPED_TEST(FusedBatchNormInPlaceTest, TestTwoMemoriesTakeTurns) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  vector<SyncedMemory*> memory;
  for (int pass = 0; pass < 6; ++pass) {
    Fill<Dtype>(&this->x_, 1, 2);
    this->Compare();
    memory.push_back(this->x_.data().get());
  }
  EXPECT_NE(memory[0], memory[1]);
  for (int pass = 2; pass < 6; ++pass) EXPECT_EQ(memory[pass - 2], memory[pass]);
}

// Layers may hand on memory that they go on using: data layers set the blob's pointer to the next of their batches,
// others, like Flatten, let it share their bottom's.
TYPED_TEST(FusedBatchNormInPlaceTest, TestMemoryOfTheLayerInFrontIsNotWritten) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  for (const bool share : {false, true}) {
    Blob<Dtype> batch[3], before[3];
    for (int i = 0; i < 3; ++i) {
      batch[i].ReshapeLike(this->x_);
      Fill<Dtype>(&batch[i], 1, 2);
      before[i].CopyFrom(batch[i], false, true);
    }
    for (int pass = 0; pass < 8; ++pass) {
      Blob<Dtype>& next = batch[pass % (share ? 1 : 3)];
      if (share) {
        this->x_.ShareData(next);
      } else if (Caffe::mode() == Caffe::GPU) {
        this->x_.set_gpu_data(const_cast<Dtype*>(next.gpu_data()));
      } else {
        this->x_.set_cpu_data(next.mutable_cpu_data());
      }
      this->Compare();
      for (int i = 0; i < 3; ++i) ExpectNear(before[i], batch[i], false, "a batch of the layer in front");
    }
  }
}

}  // namespace caffe
