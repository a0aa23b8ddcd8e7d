#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/datum_image.hpp"
#include "caffe_layers/kernels/augmentation_choices.hpp"
#include "caffe_layers/kernels/crop_normalize.hpp"
#include "caffe_layers/lmdb_records.hpp"
#include "caffe_layers/record_order.hpp"

namespace caffe {

/// The endless stream of images of an AugmentedData layer, readable at any position: an LMDB, an order of its records,
/// and what is done to each image in this phase. Errors are std::runtime_error naming the field or the record.
template <typename Dtype>
class AugmentedRecords {
 public:
  AugmentedRecords(const AugmentedDataParameter& param, Phase phase);

  uint32_t size() const { return records_.size(); }
  /// Of every image of the stream.
  int channels() const { return static_cast<int>(normalization_.size()); }
  int height() const { return height_; }
  int width() const { return width_; }

  /// What a reading thread needs for itself.
  struct Buffers {
    Datum datum;
    DatumImage image;
  };
  /// Writes an image, channels x height x width, and returns its label. Any number of threads may read at once.
  int Read(uint64_t position, Buffers* buffers, Dtype* image);

 private:
  int RecordChannels() const;
  void SetUpNormalization(int channels);
  void SetUpSize();
  caffe_layers::Augmentation Choose(uint64_t epoch, uint32_t record, int height, int width) const;

  const AugmentedDataParameter param_;
  const Phase phase_;
  const caffe_layers::AugmentationRange range_;
  LmdbRecords records_;
  RecordOrder order_;
  std::vector<caffe_layers::Normalization<Dtype>> normalization_;  // one per channel
  int height_ = 0, width_ = 0;
};

}  // namespace caffe
