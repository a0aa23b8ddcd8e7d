#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"
#include "google/protobuf/text_format.h"

namespace caffe {

template <typename Dtype>
void Fill(Blob<Dtype>* blob, Dtype low, Dtype high, bool diff = false) {
  caffe_rng_uniform(blob->count(), low, high, diff ? blob->mutable_cpu_diff() : blob->mutable_cpu_data());
}

template <typename Dtype>
void ExpectNear(const Blob<Dtype>& expected, const Blob<Dtype>& actual, bool diff, const string& what) {
  ASSERT_EQ(expected.count(), actual.count()) << what;
  const Dtype *e = diff ? expected.cpu_diff() : expected.cpu_data(), *a = diff ? actual.cpu_diff() : actual.cpu_data();
  const Dtype tolerance = sizeof(Dtype) == 4 ? 2e-4 : 1e-10;
  for (int i = 0; i < expected.count(); ++i)
    ASSERT_NEAR(e[i], a[i], tolerance * std::max<Dtype>(1, std::abs(e[i]))) << what << " at " << i;
}

template <typename Dtype>
shared_ptr<Layer<Dtype>> MakeLayer(const string& prototxt) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(prototxt, &param)) << prototxt;
  return LayerRegistry<Dtype>::CreateLayer(param);
}

}  // namespace caffe
