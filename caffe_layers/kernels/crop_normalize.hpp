#pragma once

#include <cstddef>

namespace caffe_layers {

/// One channel of an image, planar or interleaved: pixel (y, x) is data[y * row_step + x * pixel_step].
template <typename Pixel>
struct PlaneView {
  const Pixel* data;
  int height, width;
  std::ptrdiff_t row_step, pixel_step;
};

/// Part of an image; rows and columns outside of it are padding. A mirrored window is flipped after it is cut out.
struct CropWindow {
  int y, x;
  int height, width;
  bool mirror;
};

/// (value - mean) / deviation for the values of one channel, from a table where they are bytes.
template <typename Dtype>
class Normalization {
 public:
  /// The padding is a raw 0 if pad_black, else 0 after normalisation.
  Normalization(float mean, float deviation, bool pad_black);
  Dtype padding() const { return padding_; }
  Dtype operator()(unsigned char value) const { return table_[value]; }
  Dtype operator()(float value) const { return static_cast<Dtype>((value - mean_) / deviation_); }

 private:
  double mean_, deviation_;
  Dtype table_[256], padding_;
};

/// Cuts the window out of the plane and normalises it into top: window.height x window.width, contiguous.
/// Pixel: unsigned char or float.
template <typename Pixel, typename Dtype>
void crop_normalize(const PlaneView<Pixel>& plane, const CropWindow& window, const Normalization<Dtype>& normalization,
                    Dtype* top);

}  // namespace caffe_layers
