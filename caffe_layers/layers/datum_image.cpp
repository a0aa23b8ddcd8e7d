#include "caffe_layers/datum_image.hpp"

#include <algorithm>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>

namespace caffe {
namespace {

void Decode(const Datum& datum, int flags, cv::Mat* image) {
  const std::string& data = datum.data();
  try {
    cv::imdecode(cv::Mat(1, static_cast<int>(data.size()), CV_8UC1, const_cast<char*>(data.data())), flags, image);
  } catch (const cv::Exception&) {
    image->release();  // for example of an image without bytes
  }
  if (image->empty()) {
    throw std::runtime_error("cannot be decoded: its " + std::to_string(data.size()) +
                             " bytes are no image that OpenCV can read");
  }
}

}  // namespace

int DatumImage::Channels(const Datum& datum) {
  if (!datum.encoded() || datum.channels() > 0) return datum.channels();
  cv::Mat image;
  Decode(datum, cv::IMREAD_UNCHANGED, &image);
  return image.channels() == 1 ? 1 : 3;
}

void DatumImage::Read(const Datum& datum, int channels) {
  if (!datum.encoded()) {
    ReadRaw(datum, channels);
    return;
  }
  if (channels != 1 && channels != 3) {
    throw std::runtime_error("is an encoded image, which has 1 or 3 channels where the layer has " +
                             std::to_string(channels));
  }
  Decode(datum, channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR, &decoded_);
  planes_.assign(1, decoded_);
}

void DatumImage::ReadRaw(const Datum& datum, int channels) {
  const bool floats = datum.float_data_size() > 0;
  const size_t size = floats ? datum.float_data_size() : datum.data().size();
  const int planes = datum.channels(), height = datum.height(), width = datum.width();
  if (std::min({planes, height, width}) < 1 || size != size_t(planes) * height * width) {
    throw std::runtime_error("has " + std::to_string(size) + " values, which is not channels x height x width = " +
                             std::to_string(planes) + " x " + std::to_string(height) + " x " + std::to_string(width));
  }
  if (planes != channels && planes != 1) {
    throw std::runtime_error("has " + std::to_string(planes) + " channels where the layer has " +
                             std::to_string(channels));
  }
  const char* pixels = floats ? reinterpret_cast<const char*>(datum.float_data().data()) : datum.data().data();
  const int type = floats ? CV_32FC1 : CV_8UC1;
  const size_t bytes = size / planes * (floats ? sizeof(float) : 1);
  planes_.clear();
  for (int c = 0; c < planes; ++c) planes_.emplace_back(height, width, type, const_cast<char*>(pixels + c * bytes));
}

void DatumImage::Scale(int side) {
  for (cv::Mat& plane : planes_) {
    cv::Mat scaled;
    cv::resize(plane, scaled, cv::Size(side, side), 0, 0, cv::INTER_LINEAR);
    plane = scaled;
  }
}

template <typename Pixel, typename Dtype>
static void CropChannel(const cv::Mat& image, int channel, const caffe_layers::CropWindow& window,
                        const caffe_layers::Normalization<Dtype>& normalization, Dtype* top) {
  const caffe_layers::PlaneView<Pixel> plane = {image.ptr<Pixel>() + (image.channels() > 1 ? channel : 0), image.rows,
                                                image.cols, static_cast<std::ptrdiff_t>(image.step1()),
                                                image.channels()};
  caffe_layers::crop_normalize(plane, window, normalization, top);
}

template <typename Dtype>
void DatumImage::CropNormalize(const caffe_layers::CropWindow& window,
                               const std::vector<caffe_layers::Normalization<Dtype>>& normalization, Dtype* top) const {
  for (size_t c = 0; c < normalization.size(); ++c, top += window.height * window.width) {
    const cv::Mat& image = planes_[planes_.size() == 1 ? 0 : c];
    const auto crop = image.depth() == CV_8U ? CropChannel<unsigned char, Dtype> : CropChannel<float, Dtype>;
    crop(image, static_cast<int>(c), window, normalization[c], top);
  }
}

template void DatumImage::CropNormalize(const caffe_layers::CropWindow&,
                                        const std::vector<caffe_layers::Normalization<float>>&, float*) const;
template void DatumImage::CropNormalize(const caffe_layers::CropWindow&,
                                        const std::vector<caffe_layers::Normalization<double>>&, double*) const;

}  // namespace caffe
