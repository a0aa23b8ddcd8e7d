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

// The first layer's x and y are still there when its backward pass comes, though the blob holds the second one's y.
TYPED_TEST(FusedBatchNormInPlaceTest, TestTwoLayersOnOneBlob) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype>&x = this->x_, &copy = this->copy_, &between = this->top_;
  Blob<Dtype> last, residual(x.shape()), residual_copy(x.shape());
  const string relu = "type: 'FusedBatchNorm' fused_batch_norm_param { relu: true }";
  const auto first = MakeLayer<Dtype>(relu), first_apart = MakeLayer<Dtype>(relu);
  first->SetUp({&x, &residual}, {&x});
  first_apart->SetUp({&copy, &residual}, {&between});
  this->in_place_->SetUp({&x}, {&x});
  this->apart_->SetUp({&between}, {&last});
  for (int pass = 0; pass < 5; ++pass) {
    Fill<Dtype>(&x, 1, 2);
    Fill<Dtype>(&residual, -1, 1);
    copy.CopyFrom(x);
    residual_copy.CopyFrom(residual);
    first->Forward({&x, &residual}, {&x});
    this->in_place_->Forward({&x}, {&x});
    first_apart->Forward({&copy, &residual_copy}, {&between});
    this->apart_->Forward({&between}, {&last});
    Fill<Dtype>(&last, -1, 1, true);
    x.CopyFrom(last, true);
    this->in_place_->Backward({&x}, {true}, {&x});
    first->Backward({&x}, {true, true}, {&x, &residual});
    this->apart_->Backward({&last}, {true}, {&between});
    first_apart->Backward({&between}, {true, true}, {&copy, &residual_copy});
    ExpectNear(last, x, false, "top");
    ExpectNear(copy, x, true, "gradient of x");
    ExpectNear(residual_copy, residual, true, "gradient of the residual");
  }
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

// Where the layer in front shares its own memory each time, y stays in one of the layer's.
TYPED_TEST(FusedBatchNormInPlaceTest, TestOneMemoryForY) {
  SKIP_WITHOUT_DEVICE();
  typedef typename TypeParam::Dtype Dtype;
  Blob<Dtype> in_front(this->x_.shape());
  Fill<Dtype>(&in_front, 1, 2);
  SyncedMemory* first = nullptr;
  for (int pass = 0; pass < 3; ++pass) {
    this->x_.ShareData(in_front);
    this->in_place_->Forward({&this->x_}, {&this->x_});
    if (pass == 0) first = this->x_.data().get();
    EXPECT_EQ(first, this->x_.data().get());
  }
}

}  // namespace caffe
