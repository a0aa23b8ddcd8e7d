#pragma once

#include <opencv2/core.hpp>
#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/kernels/crop_normalize.hpp"

namespace caffe {

/// The image of one Datum: bytes, floats or an encoded file, gray or colour. Keeps its buffers from one record to the
/// next. Errors are std::runtime_error, to be completed with the record's name.
class DatumImage {
 public:
  /// Points into the datum, which has to stay, or decodes it with OpenCV. An encoded image is decoded to gray or colour
  /// as `channels` asks; a raw gray one stands for every channel.
  void Read(const Datum& datum, int channels);
  /// Resizes to side x side with OpenCV's bilinear interpolation.
  void Scale(int side);
  int height() const { return planes_[0].rows; }
  int width() const { return planes_[0].cols; }
  /// Cuts out and normalises every channel: top is channels x window.height x window.width, one normalization a
  /// channel.
  template <typename Dtype>
  void CropNormalize(const caffe_layers::CropWindow& window,
                     const std::vector<caffe_layers::Normalization<Dtype>>& normalization, Dtype* top) const;

  /// The number of channels that a datum has by itself.
  static int Channels(const Datum& datum);

 private:
  void ReadRaw(const Datum& datum, int channels);

  std::vector<cv::Mat> planes_;  // one interleaved image, or one plane a channel, or one gray plane for all channels
  cv::Mat decoded_;
};

}  // namespace caffe
