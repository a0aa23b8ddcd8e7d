#include "caffe_layers/kernels/crop_normalize.hpp"

#include <algorithm>

namespace caffe_layers {

template <typename Dtype>
Normalization<Dtype>::Normalization(float mean, float deviation, bool pad_black) : mean_(mean), deviation_(deviation) {
  for (int value = 0; value < 256; ++value) table_[value] = (*this)(static_cast<float>(value));
  padding_ = pad_black ? table_[0] : Dtype(0);
}

template <typename Pixel, typename Dtype>
void crop_normalize(const PlaneView<Pixel>& plane, const CropWindow& window, const Normalization<Dtype>& normalization,
                    Dtype* top) {
  const int first = std::clamp(-window.x, 0, window.width);  // the columns first .. last-1 lie in the image
  const int last = std::clamp(plane.width - window.x, first, window.width);
  for (int row = 0; row < window.height; ++row, top += window.width) {
    const int y = window.y + row;
    if (y < 0 || y >= plane.height || first == last) {
      std::fill_n(top, window.width, normalization.padding());
      continue;
    }
    std::fill(top, top + first, normalization.padding());
    std::fill(top + last, top + window.width, normalization.padding());
    const Pixel* pixel = plane.data + y * plane.row_step + (window.x + first) * plane.pixel_step;
    for (int i = first; i < last; ++i, pixel += plane.pixel_step) top[i] = normalization(*pixel);
    if (window.mirror) std::reverse(top, top + window.width);
  }
}

template class Normalization<float>;
template class Normalization<double>;

#define INSTANTIATE_CROP_NORMALIZE(Pixel, Dtype)                                                                      \
  template void crop_normalize<Pixel, Dtype>(const PlaneView<Pixel>&, const CropWindow&, const Normalization<Dtype>&, \
                                             Dtype*)
INSTANTIATE_CROP_NORMALIZE(unsigned char, float);
INSTANTIATE_CROP_NORMALIZE(unsigned char, double);
INSTANTIATE_CROP_NORMALIZE(float, float);
INSTANTIATE_CROP_NORMALIZE(float, double);

}  // namespace caffe_layers
