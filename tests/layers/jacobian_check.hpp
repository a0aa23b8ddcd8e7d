// The Jacobian of a layer, all outputs by all inputs and parameters: Backward's against central differences of Forward.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe_layers_test {

/// Accepts what Caffe's GradientChecker accepts, which makes two forward passes and keeps one difference of each for
/// every pair of an output and an input value. Here two forward passes serve all outputs:
///
///   2 * values + 1 forward passes, one backward pass per output.
///
/// In each pass one blob's values are written and the tops' read: on a GPU everything else stays there.
template <typename Dtype>
class JacobianCheck {
 public:
  typedef std::vector<caffe::Blob<Dtype>*> Blobs;

  JacobianCheck(caffe::Layer<Dtype>* layer, const Blobs& bottom, const Blobs& top, Dtype step, Dtype threshold)
      : layer_(layer), bottom_(bottom), top_(top), step_(step), threshold_(threshold) {
    for (caffe::Blob<Dtype>* blob : bottom) {
      CHECK(std::find(top.begin(), top.end(), blob) == top.end()) << "in place, Forward would overwrite what is varied";
    }
  }

  ::testing::AssertionResult Run() {
    layer_->SetUp(bottom_, top_);
    CollectInputs();
    RunBackward();
    for (const Input& input : inputs_) {
      for (int i = 0; i < input.blob->count(); ++i) CompareColumn(input, i);
    }
    CHECK_GT(compared_, 0) << "no outputs, or nothing that they depend on";
    if (wrong_ == 0) return ::testing::AssertionSuccess() << compared_ << " derivatives are right";
    return ::testing::AssertionFailure() << wrong_ << " of " << compared_ << " derivatives are wrong" << messages_;
  }

 private:
  static constexpr int kObjectiveWeight = 2;  // Caffe's: the objective is twice the output
  static constexpr int kMaxMessages = 10;

  /// A bottom or a parameter blob, and Backward's derivatives by it, output after output.
  struct Input {
    caffe::Blob<Dtype>* blob;
    std::string name;
    std::vector<Dtype> derivatives;
  };

  void CollectInputs() {
    for (size_t b = 0; b < layer_->blobs().size(); ++b) {
      inputs_.push_back({layer_->blobs()[b].get(), "parameter blob " + std::to_string(b), {}});
    }
    for (size_t b = 0; b < bottom_.size(); ++b) inputs_.push_back({bottom_[b], "bottom " + std::to_string(b), {}});
  }

  /// Parameters' gradients are added to, so they start from zero; bottoms' must be overwritten.
  void RunBackward() {
    layer_->Forward(bottom_, top_);
    for (caffe::Blob<Dtype>* output : top_) {
      for (int j = 0; j < output->count(); ++j) {
        for (const auto& blob : layer_->blobs()) SetToZero(blob->count(), blob->mutable_cpu_diff());
        for (caffe::Blob<Dtype>* blob : top_) SetToZero(blob->count(), blob->mutable_cpu_diff());
        output->mutable_cpu_diff()[j] = kObjectiveWeight;
        layer_->Backward(top_, std::vector<bool>(bottom_.size(), true), bottom_);
        for (Input& input : inputs_) {
          const Dtype* diff = input.blob->cpu_diff();
          input.derivatives.insert(input.derivatives.end(), diff, diff + input.blob->count());
        }
      }
    }
  }

  static void SetToZero(int count, Dtype* values) { caffe::caffe_set(count, Dtype(0), values); }

  /// Copied at once: a top may share a bottom's memory.
  std::vector<Dtype> Objectives() {
    layer_->Forward(bottom_, top_);
    std::vector<Dtype> objectives;
    for (const caffe::Blob<Dtype>* blob : top_) {
      const Dtype* data = blob->cpu_data();
      for (int j = 0; j < blob->count(); ++j) objectives.push_back(data[j] * kObjectiveWeight);
    }
    return objectives;
  }

  /// All outputs' derivatives by one value.
  void CompareColumn(const Input& input, int i) {
    const Dtype value = input.blob->cpu_data()[i];
    input.blob->mutable_cpu_data()[i] = value + step_;
    const std::vector<Dtype> above = Objectives();
    input.blob->mutable_cpu_data()[i] = value - step_;
    const std::vector<Dtype> below = Objectives();
    input.blob->mutable_cpu_data()[i] = value;
    for (size_t output = 0; output < above.size(); ++output) {
      const Dtype computed = input.derivatives[output * input.blob->count() + i];
      const Dtype estimated = (above[output] - below[output]) / step_ / 2;
      ++compared_;
      if (IsNear(computed, estimated) || ++wrong_ > kMaxMessages) continue;
      std::ostringstream message;
      message << "\n"
              << OutputName(output) << " by " << input.name << " [" << i << "] = " << value << ": Backward " << computed
              << ", differences " << estimated << ", objectives " << above[output] << " and " << below[output];
      messages_ += message.str();
    }
  }

  /// NaN is near nothing; infinity neither, though infinitely much be allowed.
  bool IsNear(Dtype computed, Dtype estimated) const {
    const Dtype scale = std::max(std::max(std::abs(computed), std::abs(estimated)), Dtype(1));
    const double error = std::abs(static_cast<double>(computed) - estimated);
    return std::isfinite(error) && error <= threshold_ * scale;
  }

  std::string OutputName(int output) const {
    size_t t = 0;
    for (; output >= top_[t]->count(); ++t) output -= top_[t]->count();
    return "top " + std::to_string(t) + " [" + std::to_string(output) + "]";
  }

  caffe::Layer<Dtype>* const layer_;
  const Blobs bottom_, top_;
  const Dtype step_, threshold_;
  std::vector<Input> inputs_;
  long compared_ = 0, wrong_ = 0;
  std::string messages_;
};

/// Are all derivatives of all tops right, by the bottoms and the parameters? As Caffe's CheckGradientExhaustive it sets
/// the layer up, goes `step` to both sides of each value, and allows `threshold` times the derivative or 1, whichever
/// is larger. The result says which are wrong. A layer in place ends the program.
template <typename Dtype>
[[nodiscard]] ::testing::AssertionResult jacobian_is_right(caffe::Layer<Dtype>* layer,
                                                           const std::vector<caffe::Blob<Dtype>*>& bottom,
                                                           const std::vector<caffe::Blob<Dtype>*>& top, double step,
                                                           double threshold) {
  return JacobianCheck<Dtype>(layer, bottom, top, step, threshold).Run();
}

}  // namespace caffe_layers_test
