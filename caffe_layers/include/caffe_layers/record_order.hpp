#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace caffe {

/// An endless stream of records: epoch after epoch, each visiting all records once, in key order or shuffled anew.
/// Any place in it can be asked for, by any thread.
class RecordOrder {
 public:
  RecordOrder(uint32_t records, bool shuffle, uint64_t seed) : records_(records), shuffle_(shuffle), seed_(seed) {}

  struct Place {
    uint64_t epoch;
    uint32_t record;
  };
  Place At(uint64_t position);

 private:
  const uint32_t records_;
  const bool shuffle_;
  const uint64_t seed_;

  struct Epoch {
    uint64_t number = 0;
    std::vector<uint32_t> order;  // empty: not yet made
  };
  std::mutex mutex_;
  Epoch epochs_[2];  // batches in work span two epochs at most, unless an epoch is only a few batches long
};

}  // namespace caffe
