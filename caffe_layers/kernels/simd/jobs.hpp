#pragma once

// How threads share jobs without a barrier: on a busy machine a thread that comes late would hold up all others there.

#include <omp.h>

#include <cstddef>

#include "caffe_layers/kernels/simd/integers.hpp"

namespace caffe_layers {
namespace {

/// The number of jobs taken before this one, by any thread.
inline ptrdiff_t take_job(ptrdiff_t* taken) {
  ptrdiff_t job;
#pragma omp atomic capture
  job = (*taken)++;
  return job;
}

/// Jobs 0 .. count - 1 for the threads of a parallel region. Each thread first takes those of a range of its own, so
/// that neighbours in memory stay on one core, which needs what it fetches ahead, or the processor does beyond the end
/// of what was asked for: cores of a server that share no cache hand over a line in 0.3 us. Then it helps the others.
class SharedJobs {
 public:
  explicit SharedJobs(ptrdiff_t count) : count_(count) {}

  /// Calls work(job, next) for those that no other thread takes. `next`: the one that this thread will probably take
  /// then; `job` if none.
  template <typename Work>
  void run(const Work& work) {
    const int ranges = smaller(omp_get_num_threads(), kMostRanges), own = omp_get_thread_num() % ranges;
    for (int k = 0; k < ranges; ++k) {
      const int range = (own + k) % ranges;
      const ptrdiff_t first = count_ * range / ranges, jobs = count_ * (range + 1) / ranges - first;
      const auto job = [=](ptrdiff_t at) { return first + (at + range * kApart) % jobs; };
      for (ptrdiff_t at; (at = take_job(&taken_[range].jobs)) < jobs;) {
        work(job(at), job(k == 0 && at + 1 < jobs ? at + 1 : at));
      }
    }
  }

 private:
  static constexpr int kMostRanges = 64;
  /// Range r begins so many jobs after its first, times r: with threads at the same place of equal ranges, a power of
  /// two of bytes apart, batch norm takes 2 to 4 % longer.
  static constexpr int kApart = 5;
  struct alignas(64) Taken {  // a cache line of its own
    ptrdiff_t jobs = 0;
  };
  const ptrdiff_t count_;
  Taken taken_[kMostRanges];
};

/// Jobs that must all be done before any thread goes on.
struct CommonJobs {
  ptrdiff_t taken, done;

  /// Calls work(job) for those that no other thread takes; returns when the others have done theirs.
  template <typename Work>
  void run(ptrdiff_t count, const Work& work) {
    for (ptrdiff_t job; (job = take_job(&taken)) < count;) {
      work(job);
#pragma omp atomic update release
      ++done;
    }
    for (ptrdiff_t finished = 0; finished < count;) {
#pragma omp atomic read acquire
      finished = done;
    }
  }
};

}  // namespace
}  // namespace caffe_layers
