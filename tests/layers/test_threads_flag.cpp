// `caffe --threads`: what it sets, and what it refuses.
#include <gflags/gflags.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <string>

namespace {

TEST(ThreadsFlagTest, SetsTheThreadsOfCpuLayers) {
  const int before = omp_get_max_threads();
  for (const char* threads : {"3", "1"}) {
    EXPECT_NE("", google::SetCommandLineOption("threads", threads));
    EXPECT_EQ(threads[0] - '0', omp_get_max_threads());
  }
  EXPECT_NE("", google::SetCommandLineOption("threads", "0"));  // leaves them as they are
  EXPECT_EQ(1, omp_get_max_threads());
  omp_set_num_threads(before);
}

TEST(ThreadsFlagTest, RefusesNegativeNumbers) {
  const int before = omp_get_max_threads();
  testing::internal::CaptureStderr();
  EXPECT_EQ("", google::SetCommandLineOption("threads", "-2"));
  const std::string message = testing::internal::GetCapturedStderr().c_str();
  EXPECT_NE(std::string::npos, message.find("--threads is -2: must be 1 or more, or 0"));
  EXPECT_EQ(before, omp_get_max_threads());
}

}  // namespace
