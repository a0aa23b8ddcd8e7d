#pragma once

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>
#include <lmdb.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/caffe.hpp"
#include "caffe_layers/augmented_data_layer.hpp"
#include "temporary_folder.hpp"

namespace caffe_layers_test {

/// A new LMDB with the values under the keys 00000000, 00000001, ...
inline void write_lmdb(const std::string& path, const std::vector<std::string>& values) {
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  MDB_env* environment;
  MDB_txn* transaction;
  MDB_dbi database;
  ASSERT_EQ(mdb_env_create(&environment), MDB_SUCCESS);
  ASSERT_EQ(mdb_env_set_mapsize(environment, 1 << 28), MDB_SUCCESS);
  ASSERT_EQ(mdb_env_open(environment, path.c_str(), 0, 0644), MDB_SUCCESS);
  ASSERT_EQ(mdb_txn_begin(environment, nullptr, 0, &transaction), MDB_SUCCESS);
  ASSERT_EQ(mdb_dbi_open(transaction, nullptr, 0, &database), MDB_SUCCESS);
  for (size_t i = 0; i < values.size(); ++i) {
    char key[16];
    MDB_val k = {static_cast<size_t>(snprintf(key, sizeof(key), "%08zu", i)), key};
    MDB_val v = {values[i].size(), const_cast<char*>(values[i].data())};
    ASSERT_EQ(mdb_put(transaction, database, &k, &v, MDB_APPEND), MDB_SUCCESS);
  }
  ASSERT_EQ(mdb_txn_commit(transaction), MDB_SUCCESS);
  mdb_env_close(environment);
}

/// A raw record of planar bytes pixel(c, y, x).
inline caffe::Datum raw_datum(int channels, int height, int width, int label,
                              const std::function<int(int, int, int)>& pixel) {
  caffe::Datum datum;
  datum.set_channels(channels);
  datum.set_height(height);
  datum.set_width(width);
  datum.set_label(label);
  std::string* data = datum.mutable_data();
  for (int c = 0; c < channels; ++c) {
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) data->push_back(static_cast<char>(pixel(c, y, x)));
    }
  }
  return datum;
}

inline std::string bytes(const caffe::Datum& datum) { return datum.SerializeAsString(); }

/// `count` raw images; the label of each is its number. All pixels of all images differ in a hash-like way.
inline std::vector<std::string> numbered_images(int count, int channels = 3, int height = 8, int width = 8) {
  std::vector<std::string> values;
  for (int i = 0; i < count; ++i) {
    values.push_back(bytes(raw_datum(channels, height, width, i, [&](int c, int y, int x) {
      return (i * 2654435761u + c * 40503u + y * 9973u + x * 31337u) >> 7 & 255;
    })));
  }
  return values;
}

/// An AugmentedData layer by itself with its tops.
template <typename Dtype>
class LayerUnderTest {
 public:
  LayerUnderTest(const std::string& source, const std::string& fields, caffe::Phase phase = caffe::TRAIN) {
    caffe::LayerParameter param;
    const std::string text =
        "name: 'data' type: 'AugmentedData' augmented_data_param { source: '" + source + "' " + fields + " }";
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param));
    param.set_phase(phase);
    layer_.reset(new caffe::AugmentedDataLayer<Dtype>(param));
    layer_->SetUp({}, tops_);
  }
  /// Runs Forward and returns the labels.
  std::vector<int> Next() {
    layer_->Forward({}, tops_);
    return std::vector<int>(label_.cpu_data(), label_.cpu_data() + label_.count());
  }
  /// Labels of several batches in a row.
  std::vector<int> Next(int batches) {
    std::vector<int> all;
    for (int i = 0; i < batches; ++i) {
      const std::vector<int> labels = Next();
      all.insert(all.end(), labels.begin(), labels.end());
    }
    return all;
  }
  std::vector<Dtype> pixels() const { return std::vector<Dtype>(data_.cpu_data(), data_.cpu_data() + data_.count()); }
  caffe::Blob<Dtype>& data() { return data_; }
  caffe::Blob<Dtype>& state() { return *layer_->blobs()[0]; }

 private:
  caffe::Blob<Dtype> data_, label_;
  std::vector<caffe::Blob<Dtype>*> tops_ = {&data_, &label_};
  std::unique_ptr<caffe::AugmentedDataLayer<Dtype>> layer_;
};

}  // namespace caffe_layers_test
