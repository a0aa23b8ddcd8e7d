// How threads share jobs: each is done once, whatever the number of threads, and what a thread is told of its next job
// is true as long as no other thread helps it.

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "caffe_layers/kernels/simd/jobs.hpp"
#include "gtest/gtest.h"

namespace caffe_layers {
namespace {

TEST(SharedJobs, DoesEachJobOnce) {
  for (const int threads : {1, 2, 3, 7, 65}) {  // 65: more than there are ranges
    for (const int count : {0, 1, 2, 5, 6, 64, 1000}) {
      const std::unique_ptr<std::atomic<int>[]> done(new std::atomic<int>[count + 1]());
      SharedJobs jobs(count);
#pragma omp parallel num_threads(threads)
      jobs.run([&](ptrdiff_t job, ptrdiff_t next) {
        ++done[job >= 0 && job < count && next >= 0 && next < count ? job : count];
      });
      EXPECT_EQ(done[count], 0) << threads << " threads, " << count << " jobs: one out of range";
      for (int job = 0; job < count; ++job) EXPECT_EQ(done[job], 1) << threads << " threads, job " << job;
    }
  }
}

TEST(SharedJobs, TellsTheNextJob) {
  for (const int count : {1, 4, 5, 13}) {
    std::vector<std::pair<ptrdiff_t, ptrdiff_t>> calls;
    SharedJobs jobs(count);
    jobs.run([&](ptrdiff_t job, ptrdiff_t next) { calls.emplace_back(job, next); });
    ASSERT_EQ(calls.size(), std::size_t(count));
    for (int i = 0; i + 1 < count; ++i) EXPECT_EQ(calls[i].second, calls[i + 1].first);
    EXPECT_EQ(calls.back().second, calls.back().first);
  }
}

// A thread that comes late finds its own jobs done: the first has taken its own range, one after the other, and then
// helped out, without a word on what comes next.
TEST(SharedJobs, HelpsLateThreads) {
  constexpr int kCount = 26;
  SharedJobs jobs(kCount);
  std::vector<std::pair<ptrdiff_t, ptrdiff_t>> calls;
  bool first_done = false;
  int threads = 0;
#pragma omp parallel num_threads(2)
  {
#pragma omp single
    threads = omp_get_num_threads();
    if (omp_get_thread_num() == 0) {
      jobs.run([&](ptrdiff_t job, ptrdiff_t next) { calls.emplace_back(job, next); });
#pragma omp atomic write release
      first_done = true;
    } else {
      for (bool done = false; !done;) {
#pragma omp atomic read acquire
        done = first_done;
      }
      jobs.run([&](ptrdiff_t, ptrdiff_t) { ADD_FAILURE() << "a job was left"; });
    }
  }
  ASSERT_EQ(threads, 2) << "OpenMP gives one thread: nobody to help";
  ASSERT_EQ(calls.size(), std::size_t(kCount));
  for (int i = 0; i < kCount / 2; ++i) EXPECT_EQ(calls[i].first, i);
  std::set<ptrdiff_t> rest;
  for (int i = kCount / 2; i < kCount; ++i) {
    rest.insert(calls[i].first);
    EXPECT_EQ(calls[i].second, calls[i].first);
  }
  EXPECT_EQ(rest.size(), std::size_t(kCount / 2));
  EXPECT_GE(*rest.begin(), kCount / 2);
}

}  // namespace
}  // namespace caffe_layers
