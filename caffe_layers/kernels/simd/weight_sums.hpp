#pragma once

// Sums of weight gradients over pixels, which come as vectors of one sum per lane.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// place = sum, or if not `first` += it.
template <typename T>
ALWAYS_INLINE void put_sums(const Vector<T>* sum, bool first, Vector<T>* place) {
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) place[t] = first ? sum[t] : place[t] + sum[t];
}

/// Collects the lanes' sums of weight gradients, which come in the order of the weights: reduced a whole vector of sums
/// at once, they cost least.
template <typename T>
class WeightSums {
 public:
  explicit WeightSums(T* weight_diff) : to_(weight_diff) {}
  ~WeightSums() {
    add_whole();
    if (count_ == 0) return;
    for (int i = count_; i < kLanes<T>; ++i) sum_[i] = Vector<T>{};
    store_first(to_, load_first(to_, count_) + reduce_copy(sum_), count_);
  }
  /// Where the lanes' sums of the next `count` weights, at most 9, are to be put; what they add up to is added to
  /// weight_diff.
  Vector<T>* next(int count) {
    if (count_ + count > kHeld) add_whole();
    count_ += count;
    return sum_ + count_ - count;
  }

 private:
  static constexpr int kHeld = 72 + kLanes<T>;
  static Vector<T> reduce_copy(const Vector<T>* sums) {
    Vector<T> copy[kLanes<T>];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) copy[i] = sums[i];
    return reduce<T>(copy);
  }
  void add_whole() {
    int done = 0;
    for (; done + kLanes<T> <= count_; done += kLanes<T>, to_ += kLanes<T>) {
      store(to_, load(to_) + reduce_copy(sum_ + done));
    }
    count_ -= done;
    for (int i = 0; i < count_; ++i) sum_[i] = sum_[done + i];
  }
  T* to_;
  int count_ = 0;
  Vector<T> sum_[kHeld];
};

}  // namespace
}  // namespace caffe_layers
