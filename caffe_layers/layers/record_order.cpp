#include "caffe_layers/record_order.hpp"

#include "caffe_layers/kernels/augmentation_choices.hpp"

namespace caffe {

RecordOrder::Place RecordOrder::At(uint64_t position) {
  const uint64_t number = position / records_;
  const uint32_t index = static_cast<uint32_t>(position % records_);
  if (!shuffle_) return {number, index};
  const std::lock_guard<std::mutex> lock(mutex_);
  Epoch& epoch = epochs_[number % 2];
  if (epoch.order.empty() || epoch.number != number) {
    epoch = {number, caffe_layers::epoch_order(seed_, number, records_)};
  }
  return {number, epoch.order[index]};
}

}  // namespace caffe
