#pragma once

// What a kernel is handed in a test.

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace caffe_layers_test {

/// Scratch memory of exactly the size a kernel asked for, full of NaN, that notices writes behind its end.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : bytes_(bytes), memory_(bytes + 64 + kGuard, '\xff') {
    begin_ = memory_.data() + (64 - reinterpret_cast<size_t>(memory_.data()) % 64);
  }
  ~Workspace() {
    for (size_t i = 0; begin_ + bytes_ + i < memory_.data() + memory_.size(); ++i) {
      EXPECT_EQ('\xff', begin_[bytes_ + i]) << "workspace overrun";
    }
  }
  void* get() { return begin_; }

 private:
  static constexpr size_t kGuard = 256;
  size_t bytes_;
  std::vector<char> memory_;
  char* begin_;
};

/// A tensor of NaN that begins on a cache line, as blobs do.
template <typename T>
class Tensor {
 public:
  explicit Tensor(size_t count) : count_(count), memory_(count + kLine, std::numeric_limits<T>::quiet_NaN()) {}
  T* data() { return memory_.data() + (kLine - reinterpret_cast<size_t>(memory_.data()) / sizeof(T) % kLine); }
  std::vector<T> values() { return {data(), data() + count_}; }

 private:
  static constexpr size_t kLine = 64 / sizeof(T);
  size_t count_;
  std::vector<T> memory_;
};

}  // namespace caffe_layers_test
