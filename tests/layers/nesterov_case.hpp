#pragma once

#include <cmath>
#include <vector>

#include "caffe_layers/kernels/nesterov_kernels.hpp"
#include "device_test.hpp"

namespace caffe_layers_test {

/// Arrays of given sizes with random contents, and what the formula makes of them, computed in double with its terms in
/// another order.
template <typename T>
class NesterovCase {
 public:
  NesterovCase(const std::vector<size_t>& counts, const caffe_layers::NesterovStep<T>& step) : step_(step) {
    for (size_t count : counts) {
      const unsigned seed = 3 * data_.size();
      data_.push_back(random_values<T>(count, seed));
      gradient_.push_back(random_values<T>(count, seed + 1));
      history_.push_back(random_values<T>(count, seed + 2));
      if (count > 2) data_.back()[2] = 0;  // its sign is 0
    }
    for (size_t a = 0; a < data_.size(); ++a) Expect(a);
  }

  /// Arrays as a kernel takes them; it changes this object.
  std::vector<caffe_layers::ParameterArray<T>> Arrays() {
    std::vector<caffe_layers::ParameterArray<T>> arrays;
    for (size_t a = 0; a < data_.size(); ++a) {
      arrays.push_back({data_[a].data(), gradient_[a].data(), history_[a].data(), data_[a].size(), Rate(a), Decay(a)});
    }
    return arrays;
  }

  /// What a kernel left in Arrays() against the formula, all arrays together: a single value may come close to zero.
  void Check(const std::string& what) const {
    const double tolerance = 8 * std::numeric_limits<T>::epsilon();
    const auto data = Joined(data_), history = Joined(history_);
    expect_close(data.data(), Joined(new_data_).data(), data.size(), tolerance, what + ": data");
    expect_close(history.data(), Joined(new_history_).data(), history.size(), tolerance, what + ": history");
  }

  const std::vector<std::vector<T>>& data() const { return data_; }

 private:
  T Rate(size_t a) const { return T(0.5) / (1 + a % 3); }
  T Decay(size_t a) const { return a % 4 == 1 ? T(0) : T(0.25); }

  template <typename V>
  static std::vector<V> Joined(const std::vector<std::vector<V>>& arrays) {
    std::vector<V> all;
    for (const auto& array : arrays) all.insert(all.end(), array.begin(), array.end());
    return all;
  }

  void Expect(size_t a) {
    const double m = step_.momentum;
    std::vector<double> data, history;
    for (size_t i = 0; i < data_[a].size(); ++i) {
      const double w = data_[a][i], before = history_[a][i];
      const double sign = w > 0 ? 1 : w < 0 ? -1 : 0;
      const double g = step_.gradient_scale * double(gradient_[a][i]) + Decay(a) * (step_.l1 ? sign : w);
      const double move = Rate(a) * g;
      history.push_back(m * before + move);
      data.push_back(w - m * m * before - (1 + m) * move);  // the update as one sum
    }
    new_data_.push_back(data);
    new_history_.push_back(history);
  }

  caffe_layers::NesterovStep<T> step_;
  std::vector<std::vector<T>> data_, gradient_, history_;
  std::vector<std::vector<double>> new_data_, new_history_;
};

}  // namespace caffe_layers_test
