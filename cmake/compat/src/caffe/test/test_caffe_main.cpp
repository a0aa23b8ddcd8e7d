// Caffe's test_caffe_main.cpp that, in a build with CUDA on a machine without a GPU, leaves out the tests that need one
// and says so. Caffe would abort in the first of them.
#include "caffe/test/test_caffe_main.hpp"

#include <cstring>
#include <iostream>
#include <string>

#include "caffe/caffe.hpp"
#include "compat/gpu_present.hpp"

#ifndef CPU_ONLY
namespace {

bool NeedsGpu(const testing::TestCase& suite, const testing::TestInfo& test) {
  const std::string name = std::string(suite.name()) + "." + test.name();
  for (const char* part : {"GPU", "CuDNN", "NCCL", "Im2colKernel"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return suite.type_param() != nullptr && std::strstr(suite.type_param(), "GPUDevice") != nullptr;
}

void LeaveOutTestsOfGpu() {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  std::string names;
  int count = 0;
  for (int i = 0; i < all.total_test_case_count(); ++i) {
    const testing::TestCase& suite = *all.GetTestCase(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      if (!NeedsGpu(suite, *suite.GetTestInfo(j))) continue;
      names += std::string(":") + suite.name() + "." + suite.GetTestInfo(j)->name();
      ++count;
    }
  }
  const std::string filter = testing::GTEST_FLAG(filter).c_str();
  testing::GTEST_FLAG(filter) = filter + (filter.find('-') == std::string::npos ? "-" : "") + names;
  std::cout << "[  SKIPPED ] no GPU on this machine: the tests that need one are left out, " << count << " of "
            << all.total_test_count() << std::endl;
}

int RunTestsOfThisMachine() {
  if (!CompatGpuPresent()) LeaveOutTestsOfGpu();
  return testing::UnitTest::GetInstance()->Run();
}

}  // namespace

#undef RUN_ALL_TESTS
#define RUN_ALL_TESTS RunTestsOfThisMachine
#endif  // CPU_ONLY

#include "src/caffe/test/test_caffe_main.cpp"
