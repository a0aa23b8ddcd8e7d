#pragma once

// How threads share jobs without a barrier: on a busy machine a thread that comes late would hold up all others there.

#include <cstddef>

namespace caffe_layers {
namespace {

/// The number of jobs taken before this one, by any thread.
inline ptrdiff_t take_job(ptrdiff_t* taken) {
  ptrdiff_t job;
#pragma omp atomic capture
  job = (*taken)++;
  return job;
}

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
