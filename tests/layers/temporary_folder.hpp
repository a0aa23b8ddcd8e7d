#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace caffe_layers_test {

/// A folder that is gone after the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    char name[] = "/tmp/caffe_layers_test_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace caffe_layers_test
