// Blobs start at a cache line, as vector kernels want it.
#include <cstdint>

#include "caffe/blob.hpp"
#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

TEST(BlobAlignmentTest, TestDataAndDiffStartAtACacheLine) {
  Caffe::set_mode(Caffe::CPU);
  for (const int count : {1, 3, 100, 4097, 1 << 22}) {
    Blob<float> blob(vector<int>(1, count));
    EXPECT_EQ(0, reinterpret_cast<uintptr_t>(blob.cpu_data()) % 64) << count;
    EXPECT_EQ(0, reinterpret_cast<uintptr_t>(blob.cpu_diff()) % 64) << count;
    EXPECT_EQ(0, blob.cpu_data()[count - 1]) << count;
  }
}

}  // namespace caffe
