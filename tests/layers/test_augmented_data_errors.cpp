// Bad input to AugmentedData: one message each, with the layer, the field or record, and what would be right.
#include <fstream>

#include "augmented_data_fixture.hpp"

namespace caffe_layers_test {
namespace {

class AugmentedDataErrorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::testing::FLAGS_gtest_death_test_style = "fast";
    caffe::Caffe::set_mode(caffe::Caffe::CPU);
    write_lmdb(good_, numbered_images(5));
  }
  // Sets the layer up and draws the data set once.
  void Run(const std::string& source, const std::string& fields, caffe::Phase phase = caffe::TRAIN) {
    LayerUnderTest<float> layer(source, fields, phase);
    layer.Next(5);
  }
  std::string WithBadRecord(const std::string& value) {
    std::vector<std::string> values = numbered_images(5);
    values[3] = value;
    const std::string path = folder_.path() + "/bad";
    write_lmdb(path, values);
    return path;
  }

  TemporaryFolder folder_;
  const std::string good_ = folder_.path() + "/good";
};

TEST_F(AugmentedDataErrorsTest, Source) {
  EXPECT_DEATH(Run("", "batch_size: 1"), "layer 'data': augmented_data_param has no source");
  EXPECT_DEATH(Run("/no/such", "batch_size: 1"), "'/no/such' does not exist.*python data_prep/cifar.py");
  const std::string path = folder_.path() + "/lmdb";
  write_lmdb(path, {});
  EXPECT_DEATH(Run(path, "batch_size: 1"), "lmdb' is empty.*python data_prep/cifar.py");
  write_lmdb(path, numbered_images(200));
  std::filesystem::resize_file(path + "/data.mdb", std::filesystem::file_size(path + "/data.mdb") / 2);
  EXPECT_DEATH(Run(path, "batch_size: 1"), "lmdb' is cut short: data.mdb has [0-9]* of [0-9]* bytes");
  std::ofstream(path + "/data.mdb") << std::string(100000, 'x');
  EXPECT_DEATH(Run(path, "batch_size: 1"), "lmdb' cannot be opened: MDB_INVALID");
  std::filesystem::resize_file(path + "/data.mdb", 0);
  EXPECT_DEATH(Run(path, "batch_size: 1"), "lmdb' cannot be opened");
}

TEST_F(AugmentedDataErrorsTest, Fields) {
  EXPECT_DEATH(Run(good_, ""), "batch_size is 0; it must be in 1");
  EXPECT_DEATH(Run(good_, "batch_size: 1 threads: 0"), "threads is 0");
  EXPECT_DEATH(Run(good_, "batch_size: 1 prefetch: 0"), "prefetch is 0");
  EXPECT_DEATH(Run(good_, "batch_size: 1 mean: 1 mean: 2"), "mean has 2 values for images of 3 channels");
  EXPECT_DEATH(Run(good_, "batch_size: 1 std: 1 std: 2 std: 3 std: 4"), "std has 4 values for images of 3 channels");
  EXPECT_DEATH(Run(good_, "batch_size: 1 std: 0"), "std is 0.*above 0");
  EXPECT_DEATH(Run(good_, "batch_size: 1 std: inf"), "std is inf");
  EXPECT_DEATH(Run(good_, "batch_size: 1 mean: nan"), "mean is nan; it must be a number");
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 4 min_scale: 9 max_scale: 8"), "min_scale is 9 and max_scale 8");
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 4 max_scale: 8"), "min_scale is 0 and max_scale 8");
  EXPECT_DEATH(Run(good_, "batch_size: 1 pad: 4"), "crop_size is missing");
  EXPECT_DEATH(Run(good_, "batch_size: 1 min_scale: 8 max_scale: 8"), "crop_size is missing");
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 9 min_scale: 8 max_scale: 10"), "crop_size is 9, larger than");
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 4000000000"), "crop_size is 4000000000; it must be below 65536");
  EXPECT_DEATH(Run(good_, "batch_size: 1 } param { lr_mult: 1"), "param has lr_mult 1");
  EXPECT_DEATH(Run(good_, "batch_size: 1 } blobs { shape { dim: 1 } data: 0"),
               "has 1 blobs, the first of shape 1 .1.; it must be one of 2");
}

TEST_F(AugmentedDataErrorsTest, CropLargerThanTheImage) {
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 13 pad: 2"), "8 x 8, with pad 2 smaller than crop_size 13");
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 9 pad: 2", caffe::TEST),
               "8 x 8, with pad 0 smaller than crop_size 9");
  // Such a crop would take 50 GB.
  EXPECT_DEATH(Run(good_, "batch_size: 1 crop_size: 65535"), "8 x 8, with pad 0 smaller than crop_size 65535");
}

// Bad records are met by a worker thread; the message comes out of Forward.
TEST_F(AugmentedDataErrorsTest, Records) {
  const auto zero = [](int, int, int) { return 0; };
  caffe::Datum datum = raw_datum(3, 8, 9, 0, zero);
  EXPECT_DEATH(Run(WithBadRecord(bytes(datum)), "batch_size: 1"),
               "layer 'data': record 3 .key 00000003. of .*bad' is 8 x 9 where the first record is 8 x 8");
  EXPECT_DEATH(Run(WithBadRecord(bytes(raw_datum(3, 4, 4, 0, zero))), "batch_size: 1 crop_size: 8 pad: 1"),
               "record 3 .key 00000003. .* is 4 x 4, with pad 1 smaller than crop_size 8");
  EXPECT_DEATH(Run(WithBadRecord(bytes(raw_datum(2, 8, 8, 0, zero))), "batch_size: 1"),
               "record 3 .* has 2 channels where the layer has 3");
  caffe::Datum negative = raw_datum(3, 8, 8, 0, zero);
  negative.set_height(-8);
  negative.set_width(-8);
  EXPECT_DEATH(Run(WithBadRecord(bytes(negative)), "batch_size: 1"), "record 3 .* has 192 values.*3 x -8 x -8");
  datum.mutable_data()->resize(100);
  EXPECT_DEATH(Run(WithBadRecord(bytes(datum)), "batch_size: 1"), "record 3 .* has 100 values.*3 x 8 x 9");
  EXPECT_DEATH(Run(WithBadRecord("nonsense"), "batch_size: 1"), "record 3 .* is not a Datum .8 bytes.");
  EXPECT_DEATH(Run(WithBadRecord(""), "batch_size: 1"), "record 3 .* has 0 values");
  datum.set_encoded(true);
  EXPECT_DEATH(Run(WithBadRecord(bytes(datum)), "batch_size: 1"), "record 3 .* cannot be decoded: its 100 bytes");
  datum.set_data("");
  EXPECT_DEATH(Run(WithBadRecord(bytes(datum)), "batch_size: 1"), "record 3 .* cannot be decoded: its 0 bytes");
}

TEST_F(AugmentedDataErrorsTest, DamagedPlace) {
  EXPECT_DEATH(
      {
        LayerUnderTest<float> layer(good_, "batch_size: 1");
        layer.state().mutable_cpu_data()[1] = 0.5;
        layer.Next();
      },
      "its blob holds 0.5");
}

}  // namespace
}  // namespace caffe_layers_test
