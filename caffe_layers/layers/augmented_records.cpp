#include "caffe_layers/augmented_records.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace caffe {
namespace {

using caffe_layers::AugmentationRange;
using std::string;
using std::to_string;

void Require(bool condition, const string& what) {
  if (!condition) throw std::runtime_error(what);
}

int Size(const char* field, uint32_t value) {
  Require(value < 65536, string(field) + " is " + to_string(value) + "; it must be below 65536");
  return static_cast<int>(value);
}

// What goes wrong inside concerns this record.
template <typename Function>
auto ForRecord(const LmdbRecords& records, uint32_t record, Function function) {
  try {
    return function();
  } catch (const std::exception& error) {
    throw std::runtime_error(records.Describe(record) + " " + error.what());
  }
}

// TEST leaves out all but the crop, so that one set of parameters serves both phases.
AugmentationRange RangeOf(const AugmentedDataParameter& param, Phase phase) {
  Require(!param.source().empty(), "augmented_data_param has no source; give the folder of an LMDB");
  const AugmentationRange range = {Size("min_scale", param.min_scale()), Size("max_scale", param.max_scale()),
                                   Size("pad", param.pad()), Size("crop_size", param.crop_size()), param.mirror()};
  Require((range.min_scale == 0) == (range.max_scale == 0) && range.min_scale <= range.max_scale,
          "min_scale is " + to_string(range.min_scale) + " and max_scale " + to_string(range.max_scale) +
              "; give both, the smaller one first, or neither");
  Require(range.crop > 0 || (range.pad == 0 && range.max_scale == 0),
          "crop_size is missing, which pad and max_scale need; give the size of the images for the net");
  Require(range.max_scale == 0 || range.min_scale + 2 * range.pad >= range.crop,
          "crop_size is " + to_string(range.crop) + ", larger than an image scaled to min_scale " +
              to_string(range.min_scale) + " with pad " + to_string(range.pad));
  if (phase == TRAIN) return range;
  AugmentationRange crop_only;
  crop_only.crop = range.crop;
  return crop_only;
}

}  // namespace

template <typename Dtype>
AugmentedRecords<Dtype>::AugmentedRecords(const AugmentedDataParameter& param, Phase phase)
    : param_(param),
      phase_(phase),
      range_(RangeOf(param, phase)),
      records_(param.source()),
      order_(records_.size(), phase == TRAIN && param.shuffle(), param.seed()) {
  const int channels = RecordChannels();
  // A gray image may stand for several channels, each with a mean of its own.
  SetUpNormalization(channels > 1 ? channels : std::max({1, param.mean_size(), param.std_size()}));
  SetUpSize();
}

// Encoded images have colour if one of the first has: gray ones occur among them (Tiny ImageNet).
template <typename Dtype>
int AugmentedRecords<Dtype>::RecordChannels() const {
  constexpr uint32_t kLookedAt = 100;
  int channels = 0;
  Datum datum;
  for (uint32_t record = 0; record < std::min(records_.size(), kLookedAt); ++record) {
    channels = ForRecord(records_, record, [&] {
      records_.Read(record, &datum);
      return std::max(channels, DatumImage::Channels(datum));
    });
    if (!datum.encoded() || channels > 1) break;
  }
  return channels;
}

template <typename Dtype>
void AugmentedRecords<Dtype>::SetUpNormalization(int channels) {
  const auto value = [&](const char* field, const google::protobuf::RepeatedField<float>& values, int c, float none) {
    Require(values.size() <= 1 || values.size() == channels, string(field) + " has " + to_string(values.size()) +
                                                                 " values for images of " + to_string(channels) +
                                                                 " channels; give one, or one for each channel");
    return values.empty() ? none : values.Get(values.size() == 1 ? 0 : c);
  };
  for (int c = 0; c < channels; ++c) {
    const float deviation = value("std", param_.std(), c, 1);
    Require(deviation > 0 && std::isfinite(deviation), "std is " + to_string(deviation) + "; it must be above 0");
    const float mean = value("mean", param_.mean(), c, 0);
    Require(std::isfinite(mean), "mean is " + to_string(mean) + "; it must be a number");
    normalization_.emplace_back(mean, deviation, param_.pad_mode() == AugmentedDataParameter::BLACK);
  }
}

template <typename Dtype>
void AugmentedRecords<Dtype>::SetUpSize() {
  Buffers buffers;
  ForRecord(records_, 0, [&] {
    records_.Read(0, &buffers.datum);
    buffers.image.Read(buffers.datum, channels());
    height_ = range_.crop > 0 ? range_.crop : buffers.image.height();
    width_ = range_.crop > 0 ? range_.crop : buffers.image.width();
    Choose(0, 0, buffers.image.height(), buffers.image.width());  // before memory for a crop that is too large is taken
  });
  // Reading one now tells about a record or crop_size that cannot be before the training starts.
  std::vector<Dtype> image(static_cast<size_t>(channels()) * height_ * width_);
  Read(0, &buffers, image.data());
}

template <typename Dtype>
int AugmentedRecords<Dtype>::Read(uint64_t position, Buffers* buffers, Dtype* top) {
  const RecordOrder::Place place = order_.At(position);
  DatumImage& image = buffers->image;
  ForRecord(records_, place.record, [&] {
    records_.Read(place.record, &buffers->datum);
    image.Read(buffers->datum, channels());
    const caffe_layers::Augmentation choice = Choose(place.epoch, place.record, image.height(), image.width());
    if (choice.scale > 0) image.Scale(choice.scale);
    image.CropNormalize({choice.y - range_.pad, choice.x - range_.pad, height_, width_, choice.mirror}, normalization_,
                        top);
  });
  return buffers->datum.label();
}

template <typename Dtype>
caffe_layers::Augmentation AugmentedRecords<Dtype>::Choose(uint64_t epoch, uint32_t record, int height,
                                                           int width) const {
  const string size = "is " + to_string(height) + " x " + to_string(width);
  Require(range_.crop > 0 || (height == height_ && width == width_),
          size + " where the first record is " + to_string(height_) + " x " + to_string(width_) +
              "; give crop_size, or prepare images of one size");
  Require(range_.max_scale > 0 || std::min(height, width) + 2 * range_.pad >= range_.crop,
          size + ", with pad " + to_string(range_.pad) + " smaller than crop_size " + to_string(range_.crop) +
              "; give a smaller crop_size, or prepare larger images");
  if (phase_ == TEST) return caffe_layers::centre_crop(range_.crop, height, width);
  return caffe_layers::choose_augmentation(range_, height, width, {param_.seed(), epoch, record});
}

template class AugmentedRecords<float>;
template class AugmentedRecords<double>;

}  // namespace caffe
