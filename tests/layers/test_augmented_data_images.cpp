// What AugmentedData does to a single image, for every kind of Datum, against code of the test's own and OpenCV.
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <vector>

#include "augmented_data_fixture.hpp"

namespace caffe_layers_test {
namespace {

using Layer = LayerUnderTest<float>;

int pixel(int c, int y, int x) { return (c * 97 + y * 31 + x * 7 + y * x * 3) % 256; }

cv::Mat colour_image(int height, int width) {
  cv::Mat image(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) image.at<cv::Vec3b>(y, x)[c] = pixel(c, y, x);
    }
  }
  return image;
}

caffe::Datum encoded_datum(const cv::Mat& image, const std::string& format) {
  std::vector<unsigned char> file;
  cv::imencode(format, image, file);
  caffe::Datum datum;
  datum.set_encoded(true);
  datum.set_label(1);
  datum.set_data(file.data(), file.size());
  return datum;
}

class AugmentedDataImagesTest : public ::testing::Test {
 protected:
  void SetUp() override { caffe::Caffe::set_mode(caffe::Caffe::CPU); }
  std::string Write(const std::vector<caffe::Datum>& datums) {
    std::vector<std::string> values;
    for (const caffe::Datum& datum : datums) values.push_back(bytes(datum));
    const std::string path = folder_.path() + "/" + std::to_string(++written_);
    write_lmdb(path, values);
    return path;
  }

  TemporaryFolder folder_;
  int written_ = 0;
};

// Top value (c, y, x) of the layer's image n.
float at(Layer& layer, int n, int c, int y, int x) { return layer.data().data_at(n, c, y, x); }

TEST_F(AugmentedDataImagesTest, NormalisesEachChannel) {
  Layer layer(Write({raw_datum(3, 5, 6, 0, pixel)}), "batch_size: 1 mean: 10 mean: 20.5 mean: 30 std: 2 std: 3 std: 4",
              caffe::TEST);
  layer.Next();
  ASSERT_EQ(layer.data().shape(), (std::vector<int>{1, 3, 5, 6}));
  const double mean[] = {10, 20.5, 30}, std[] = {2, 3, 4};
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < 5; ++y) {
      for (int x = 0; x < 6; ++x) ASSERT_EQ(at(layer, 0, c, y, x), float((pixel(c, y, x) - mean[c]) / std[c]));
    }
  }
}

TEST_F(AugmentedDataImagesTest, OneMeanServesAllChannels) {
  Layer layer(Write({raw_datum(4, 2, 2, 0, pixel)}), "batch_size: 1 mean: 7 std: 2", caffe::TEST);
  layer.Next();
  for (int c = 0; c < 4; ++c) EXPECT_EQ(at(layer, 0, c, 1, 1), (pixel(c, 1, 1) - 7) / 2.f);
}

TEST_F(AugmentedDataImagesTest, TestPhaseCropsTheCentreAndNothingElse) {
  Layer layer(Write({raw_datum(1, 9, 12, 0, pixel)}),
              "batch_size: 1 crop_size: 4 pad: 3 mirror: true min_scale: 20 max_scale: 30", caffe::TEST);
  layer.Next();
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 4; ++x) ASSERT_EQ(at(layer, 0, 0, y, x), pixel(0, y + 2, x + 4));
  }
}

// Each training image is one of the windows of the padded image, plain or mirrored, and all of them come up.
void check_padded_crops(const std::string& source, const std::string& mode, float padding) {
  Layer layer(source, "batch_size: 2000 shuffle: false crop_size: 8 pad: 2 mirror: true mean: 50 std: 4 " + mode);
  layer.Next();
  std::map<std::vector<float>, int> windows;
  for (int y0 = -2; y0 <= 2; ++y0) {
    for (int x0 = -2; x0 <= 2; ++x0) {
      for (bool mirror : {false, true}) {
        std::vector<float> window;
        for (int c = 0; c < 3; ++c) {
          for (int y = y0; y < y0 + 8; ++y) {
            for (int i = 0; i < 8; ++i) {
              const int x = x0 + (mirror ? 7 - i : i);
              const bool inside = y >= 0 && y < 8 && x >= 0 && x < 8;
              window.push_back(inside ? (pixel(c, y, x) - 50) / 4.f : padding);
            }
          }
        }
        windows[window] = 0;
      }
    }
  }
  ASSERT_EQ(windows.size(), 50u);
  const std::vector<float> pixels = layer.pixels();
  for (int n = 0; n < 2000; ++n) {
    const auto found = windows.find({pixels.begin() + n * 192, pixels.begin() + (n + 1) * 192});
    ASSERT_NE(found, windows.end()) << "image " << n << " is no window of the padded image";
    ++found->second;
  }
  double chi_squared = 0;
  for (const auto& [window, count] : windows) chi_squared += (count - 40) * (count - 40) / 40.0;
  EXPECT_LT(chi_squared, 106);  // 49 degrees of freedom: above it once in 250,000
}

TEST_F(AugmentedDataImagesTest, CropsPaddedImagesUniformly) {
  const std::string source = Write({raw_datum(3, 8, 8, 0, pixel)});
  check_padded_crops(source, "", 0);
  check_padded_crops(source, "pad_mode: NORMALIZED_ZERO", 0);
  check_padded_crops(source, "pad_mode: BLACK", -12.5);
}

// Each training image is a window of the image that OpenCV scales to one of the sizes; all sizes come up.
void check_scaled_crops(const std::string& source, const cv::Mat& image) {
  constexpr int kImages = 600, kMin = 9, kMax = 13, kCrop = 8;
  Layer layer(source, "batch_size: 600 crop_size: 8 min_scale: 9 max_scale: 13 mirror: true mean: 0");
  layer.Next();
  std::map<std::vector<float>, int> size_of;
  for (int size = kMin; size <= kMax; ++size) {
    cv::Mat scaled;
    cv::resize(image, scaled, cv::Size(size, size), 0, 0, cv::INTER_LINEAR);
    for (int y0 = 0; y0 <= size - kCrop; ++y0) {
      for (int x0 = 0; x0 <= size - kCrop; ++x0) {
        for (bool mirror : {false, true}) {
          cv::Mat window = scaled(cv::Rect(x0, y0, kCrop, kCrop)).clone();
          if (mirror) cv::flip(window, window, 1);
          std::vector<float> values;
          for (int c = 0; c < 3; ++c) {
            for (int i = 0; i < kCrop * kCrop; ++i) values.push_back(window.data[3 * i + c]);
          }
          size_of[values] = size;
        }
      }
    }
  }
  std::map<int, int> counts;
  const std::vector<float> pixels = layer.pixels();
  for (int n = 0; n < kImages; ++n) {
    const auto found = size_of.find({pixels.begin() + n * 192, pixels.begin() + (n + 1) * 192});
    ASSERT_NE(found, size_of.end()) << "image " << n << " is no window of a scaled image";
    ++counts[found->second];
  }
  for (int size = kMin; size <= kMax; ++size) EXPECT_NEAR(counts[size], kImages / 5, 50) << "size " << size;
}

TEST_F(AugmentedDataImagesTest, ScalesAsOpenCvDoes) {
  check_scaled_crops(Write({encoded_datum(colour_image(10, 12), ".png")}), colour_image(10, 12));
  check_scaled_crops(Write({raw_datum(3, 10, 12, 0, pixel)}), colour_image(10, 12));
}

TEST_F(AugmentedDataImagesTest, DecodesPngAndJpegToBgrPlanes) {
  for (const std::string format : {".png", ".jpg"}) {
    const caffe::Datum datum = encoded_datum(colour_image(16, 20), format);
    Layer layer(Write({datum}), "batch_size: 1", caffe::TEST);
    EXPECT_EQ(layer.Next(), std::vector<int>{1});
    const cv::Mat expected =
        cv::imdecode(std::vector<char>(datum.data().begin(), datum.data().end()), cv::IMREAD_COLOR);
    for (int c = 0; c < 3; ++c) {
      for (int y = 0; y < 16; ++y) {
        for (int x = 0; x < 20; ++x) ASSERT_EQ(at(layer, 0, c, y, x), expected.at<cv::Vec3b>(y, x)[c]);
      }
    }
  }
}

TEST_F(AugmentedDataImagesTest, GrayStaysGrayAmongGray) {
  cv::Mat gray(6, 6, CV_8UC1);
  for (int i = 0; i < 36; ++i) gray.data[i] = i * 7;
  Layer encoded(Write({encoded_datum(gray, ".png")}), "batch_size: 1 mean: 3", caffe::TEST);
  Layer raw(Write({raw_datum(1, 6, 6, 0, [](int, int y, int x) { return (6 * y + x) * 7; })}), "batch_size: 1 mean: 3",
            caffe::TEST);
  for (Layer* layer : {&encoded, &raw}) {
    layer->Next();
    ASSERT_EQ(layer->data().shape(), (std::vector<int>{1, 1, 6, 6}));
    for (int i = 0; i < 36; ++i) ASSERT_EQ(at(*layer, 0, 0, i / 6, i % 6), i * 7 - 3);
  }
}

TEST_F(AugmentedDataImagesTest, GrayAmongColourHasThreeEqualChannels) {
  const cv::Mat gray(4, 4, CV_8UC1, cv::Scalar(90));
  const caffe::Datum raw_gray = raw_datum(1, 4, 4, 0, [](int, int, int) { return 90; });
  const caffe::Datum raw_colour = raw_datum(3, 4, 4, 0, pixel);
  // The gray one first as well: the colour of the others, or three means, tell that the net wants colour.
  Layer encoded(Write({encoded_datum(gray, ".jpg"), encoded_datum(colour_image(4, 4), ".png")}), "batch_size: 2",
                caffe::TEST);
  Layer raw(Write({raw_gray, raw_colour}), "batch_size: 2 mean: 0 mean: 0 mean: 0", caffe::TEST);
  Layer mixed(Write({raw_colour, encoded_datum(gray, ".png"), raw_gray}), "batch_size: 3", caffe::TEST);
  const std::vector<std::pair<Layer*, int>> grays = {{&encoded, 0}, {&raw, 0}, {&mixed, 1}, {&mixed, 2}};
  for (const auto& [layer, n] : grays) {
    layer->Next();
    ASSERT_EQ(layer->data().channels(), 3);
    for (int c = 0; c < 3; ++c) EXPECT_EQ(at(*layer, n, c, 2, 2), 90);
  }
}

TEST_F(AugmentedDataImagesTest, ReadsFloatData) {
  caffe::Datum datum = raw_datum(2, 3, 3, 5, pixel);
  datum.clear_data();
  for (int i = 0; i < 18; ++i) datum.add_float_data(i * 0.25f - 1);
  Layer layer(Write({datum}), "batch_size: 1 mean: 1 std: 2", caffe::TEST);
  EXPECT_EQ(layer.Next(), std::vector<int>{5});
  for (int i = 0; i < 18; ++i) EXPECT_EQ(layer.data().cpu_data()[i], (i * 0.25f - 2) / 2);
  Layer scaled(Write({datum}), "batch_size: 1 crop_size: 3 min_scale: 3 max_scale: 3");
  scaled.Next();
  for (int i = 0; i < 18; ++i) EXPECT_EQ(scaled.data().cpu_data()[i], i * 0.25f - 1);
}

TEST_F(AugmentedDataImagesTest, ImagesOfAnySizeServeWhereTheCropFits) {
  Layer layer(Write({raw_datum(1, 5, 9, 0, pixel), raw_datum(1, 8, 6, 1, pixel)}), "batch_size: 2 crop_size: 4",
              caffe::TEST);
  layer.Next();
  EXPECT_EQ(at(layer, 0, 0, 0, 0), pixel(0, 0, 2));
  EXPECT_EQ(at(layer, 1, 0, 0, 0), pixel(0, 2, 1));
}

}  // namespace
}  // namespace caffe_layers_test
