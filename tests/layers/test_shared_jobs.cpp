// How threads share jobs: each is done once, whatever the number of threads, and what a thread is told of its next job
// is true as long as no other thread helps it.

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

// A thread that comes late finds its own jobs done: the other has taken its own range, told each time what comes next,
// and then helped out, without a word on that.
TEST(SharedJobs, HelpsLateThreads) {
  constexpr ptrdiff_t kOwn = 13;
  for (const int early : {0, 1}) {
    SharedJobs jobs(2 * kOwn);
    std::vector<std::pair<ptrdiff_t, ptrdiff_t>> calls;
    bool done = false;
    int threads = 0;
#pragma omp parallel num_threads(2)
    {
#pragma omp single
      threads = omp_get_num_threads();
      if (omp_get_thread_num() == early) {
        jobs.run([&](ptrdiff_t job, ptrdiff_t next) { calls.emplace_back(job, next); });
#pragma omp atomic write release
        done = true;
      } else if (threads == 2) {
        for (bool over = false; !over;) {
#pragma omp atomic read acquire
          over = done;
        }
        jobs.run([&](ptrdiff_t, ptrdiff_t) { ADD_FAILURE() << "a job was left"; });
      }
    }
    ASSERT_EQ(threads, 2) << "OpenMP gives one thread: nobody to help";
    ASSERT_EQ(calls.size(), std::size_t(2 * kOwn));
    std::set<ptrdiff_t> own, others;
    for (ptrdiff_t i = 0; i < 2 * kOwn; ++i) {
      const bool more = i + 1 < kOwn;
      EXPECT_EQ(calls[i].second, calls[more ? i + 1 : i].first) << "thread " << early << ", call " << i;
      (i < kOwn ? own : others).insert(calls[i].first / kOwn);
    }
    EXPECT_EQ(own, std::set<ptrdiff_t>{early});
    EXPECT_EQ(others, std::set<ptrdiff_t>{1 - early});
  }
}

}  // namespace
}  // namespace caffe_layers
