#pragma once

// Fetching from memory while the units compute.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// The caches begin to fetch `pixels` values: the second level's, or if NEAR the first level's.
template <bool NEAR, typename T>
inline void fetch_run(const T* from, ptrdiff_t pixels) {
  constexpr int kStep = kCacheLine / static_cast<int>(sizeof(T));
  for (ptrdiff_t at = 0; at < pixels; at += kStep) __builtin_prefetch(from + at, 0, NEAR ? 3 : 2);
}

/// Values that the second-level cache begins to fetch little by little: a line for so many multiply-adds.
template <typename T>
class FetchMeanwhile {
 public:
  FetchMeanwhile() = default;  ///< nothing
  /// `runs` runs of at least one value, `pitch` apart, all of them in the time of `work` multiply-adds.
  FetchMeanwhile(const T* from, ptrdiff_t run, ptrdiff_t pitch, ptrdiff_t runs, ptrdiff_t work)
      : from_(from),
        run_end_(from + run),
        run_(run),
        pitch_(pitch),
        runs_(runs),
        per_line_(work * kLine / (run * runs) + 1) {}
  FetchMeanwhile(const T* from, ptrdiff_t values, ptrdiff_t work) : FetchMeanwhile(from, values, 0, 1, work) {}

  /// So many multiply-adds more.
  ALWAYS_INLINE void add(ptrdiff_t work) {
    for (work_ += work; work_ >= per_line_ && runs_ > 0; work_ -= per_line_) {
      __builtin_prefetch(from_, 0, 2);
      from_ += kLine;
      if (from_ >= run_end_) {
        run_end_ += pitch_;
        from_ = run_end_ - run_;
        --runs_;
      }
    }
  }

 private:
  static constexpr int kLine = kCacheLine / static_cast<int>(sizeof(T));
  const T *from_ = nullptr, *run_end_ = nullptr;
  ptrdiff_t run_ = 0, pitch_ = 0, runs_ = 0, per_line_ = 1, work_ = 0;
};

}  // namespace
}  // namespace caffe_layers
