#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/ordered_prefetcher.hpp"

namespace caffe {

template <typename Dtype>
class AugmentedRecords;

/**
 * @brief Reads an LMDB of Datum records and augments the images as the paper does (section 4.1).
 *
 * top[0]: N x C x H x W, (pixel - mean) / std per channel; top[1], if asked for: the N labels. N is batch_size,
 * H = W = crop_size, or the records' own size where that is 0. See AugmentedDataParameter for the fields.
 *
 * TRAIN: the records come in epochs. Each epoch has an order of its own, a function of seed and epoch; scale, crop and
 * mirror of a record are functions of seed, epoch and record. Batches run across the end of an epoch. With several
 * solvers, solver_count x batch_size records are drawn at a time, and each solver_rank takes its batch of them.
 *
 * The layer's only blob holds the place in that stream: the number of records that all solvers have drawn so far, as
 * two digits to the base 2^24, exact in float. It travels with every snapshot, and a layer whose blob was set from
 * outside goes on from there. The blob is never learned; no `param` is needed in the prototxt.
 *
 * TEST: every record in the order of the keys, centre crop, normalisation only. It starts again from the first record
 * once the training net has moved on, if that net's data layer has the same name and so shares its blob.
 *
 * Bad parameters and bad records end the program with the layer's name, the field or record, and what would be right.
 */
template <typename Dtype>
class AugmentedDataLayer : public Layer<Dtype> {
 public:
  explicit AugmentedDataLayer(const LayerParameter& param);
  ~AugmentedDataLayer() override;
  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;

  const char* type() const override { return "AugmentedData"; }
  int ExactNumBottomBlobs() const override { return 0; }
  int MinTopBlobs() const override { return 1; }
  int MaxTopBlobs() const override { return 2; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>&, const vector<bool>&, const vector<Blob<Dtype>*>&) override {}
  void Backward_gpu(const vector<Blob<Dtype>*>&, const vector<bool>&, const vector<Blob<Dtype>*>&) override {}

 private:
  struct Batch;
  struct Worker;

  /// Ends the program with the layer's name and what is wrong, unless the condition holds.
  void Require(bool condition, const string& what) const;
  void SetUpPosition();
  uint64_t ReadPosition() const;
  void WritePosition();
  void StartWorkers();
  Batch* NextBatch();
  /// Runs on a worker thread.
  void FillBatch(uint64_t position, Worker* worker, Batch* batch) const;

  std::unique_ptr<AugmentedRecords<Dtype>> records_;
  int batch_size_ = 0;
  int solver_count_ = 1, solver_rank_ = 0;
  uint64_t position_ = 0;             // of the next batch of all solvers
  uint64_t train_position_ = 0;       // TEST: the training net's, when last looked at
  const void* written_to_ = nullptr;  // the memory that this layer last wrote its position to

  std::vector<std::unique_ptr<Batch>> batches_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Batch* current_ = nullptr;
  std::unique_ptr<OrderedPrefetcher<Batch>> prefetcher_;
};

}  // namespace caffe
