#include "caffe_layers/augmented_data_layer.hpp"

#include <algorithm>
#include <cmath>
#include <exception>

#include "caffe/util/math_functions.hpp"
#include "caffe_layers/augmented_records.hpp"

namespace caffe {
namespace {

constexpr uint64_t kDigit = 1 << 24;  // the integers below it are exact in float

// Net::Init asks the layer's parameter, not the layer, whether it learns; a data layer that did would make the net
// compute gradients of the images and labels. The object behind the reference is Net::Init's own copy, and not const.
const LayerParameter& WithoutLearning(const LayerParameter& param) {
  if (param.param_size() == 0) {
    ParamSpec* spec = const_cast<LayerParameter&>(param).add_param();
    spec->set_lr_mult(0);
    spec->set_decay_mult(0);
  }
  return param;
}

}  // namespace

template <typename Dtype>
struct AugmentedDataLayer<Dtype>::Batch {
  // Allocated here and not by a worker, whose thread does not know Caffe's mode.
  explicit Batch(const vector<int>& shape) : data(shape), labels(vector<int>{shape[0]}) {
    data.mutable_cpu_data();
    labels.mutable_cpu_data();
#ifndef CPU_ONLY
    if (Caffe::mode() == Caffe::CPU) return;
    data.gpu_data();
    labels.gpu_data();
    CUDA_CHECK(cudaEventCreateWithFlags(&released, cudaEventDisableTiming));
#endif
  }
#ifndef CPU_ONLY
  ~Batch() {
    if (released) CUDA_CHECK(cudaEventDestroy(released));
  }
  cudaEvent_t released = nullptr;  // the net's last kernel that reads the batch is done
#endif
  Blob<Dtype> data, labels;
};

template <typename Dtype>
struct AugmentedDataLayer<Dtype>::Worker {
  typename AugmentedRecords<Dtype>::Buffers buffers;
#ifndef CPU_ONLY
  Worker() {
    if (Caffe::mode() == Caffe::CPU) return;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }
  ~Worker() {
    if (stream) CUDA_CHECK(cudaStreamDestroy(stream));
  }
  void PushToGpu(Batch* batch) {
    if (!stream) return;
    CUDA_CHECK(cudaSetDevice(device));
    CUDA_CHECK(cudaStreamWaitEvent(stream, batch->released, 0));
    batch->data.data()->async_gpu_push(stream);
    batch->labels.data()->async_gpu_push(stream);
    CUDA_CHECK(cudaStreamSynchronize(stream));
  }
  int device = 0;
  cudaStream_t stream = nullptr;
#endif
};

template <typename Dtype>
AugmentedDataLayer<Dtype>::AugmentedDataLayer(const LayerParameter& param) : Layer<Dtype>(WithoutLearning(param)) {}

template <typename Dtype>
AugmentedDataLayer<Dtype>::~AugmentedDataLayer() = default;

template <typename Dtype>
void AugmentedDataLayer<Dtype>::Require(bool condition, const string& what) const {
  if (!condition) LOG(FATAL) << "AugmentedData layer '" << this->layer_param_.name() << "': " << what;
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const AugmentedDataParameter& param = this->layer_param_.augmented_data_param();
  const auto in_range = [&](const char* field, uint32_t value) {
    Require(value > 0 && value < 65536, string(field) + " is " + std::to_string(value) + "; it must be in 1 .. 65535");
  };
  in_range("batch_size", param.batch_size());
  in_range("threads", param.threads());
  in_range("prefetch", param.prefetch());
  try {
    records_ = std::make_unique<AugmentedRecords<Dtype>>(param, this->phase_);
  } catch (const std::exception& error) {
    Require(false, error.what());
  }
  batch_size_ = static_cast<int>(param.batch_size());
  if (this->phase_ == TRAIN) {  // only the root solver tests
    solver_count_ = Caffe::solver_count();
    solver_rank_ = Caffe::solver_rank();
  }
  SetUpPosition();
  LOG_IF(INFO, Caffe::root_solver()) << this->layer_param_.name() << ": " << records_->size() << " records in "
                                     << param.source();
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::SetUpPosition() {
  for (const ParamSpec& spec : this->layer_param_.param()) {
    Require(spec.lr_mult() == 0, "param has lr_mult " + std::to_string(spec.lr_mult()) +
                                     "; its blob is the place in the data and must not be learned: leave param out");
  }
  if (!this->blobs_.empty()) {  // given with the parameters
    const vector<int> shape = {2};
    Require(this->blobs_.size() == 1 && this->blobs_[0]->shape() == shape,
            "has " + std::to_string(this->blobs_.size()) + " blobs, the first of shape " +
                this->blobs_[0]->shape_string() + "; it must be one of 2 values, the place in the data");
    return;
  }
  this->blobs_.resize(1);
  this->blobs_[0].reset(new Blob<Dtype>(vector<int>{2}));
  std::fill_n(this->blobs_[0]->mutable_cpu_data(), 2, Dtype(0));
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  top[0]->Reshape({batch_size_, records_->channels(), records_->height(), records_->width()});
  if (top.size() > 1) top[1]->Reshape({batch_size_});
}

template <typename Dtype>
uint64_t AugmentedDataLayer<Dtype>::ReadPosition() const {
  const auto& memory = this->blobs_[0]->data();
  // Nobody but the GPU touched it since this layer wrote it, and the solver only subtracts a zero: no need to wait for
  // the GPU to finish.
  if (written_to_ == memory.get() && memory->head() == SyncedMemory::HEAD_AT_GPU) return position_;
  const Dtype* digits = this->blobs_[0]->cpu_data();
  for (int i = 0; i < 2; ++i) {
    Require(digits[i] >= 0 && digits[i] < kDigit && digits[i] == std::floor(digits[i]),
            "its blob holds " + std::to_string(digits[i]) + ", which is no place in the data; the snapshot is damaged");
  }
  return static_cast<uint64_t>(digits[0]) + kDigit * static_cast<uint64_t>(digits[1]);
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::WritePosition() {
  const Dtype digits[2] = {static_cast<Dtype>(position_ % kDigit), static_cast<Dtype>(position_ / kDigit)};
  Blob<Dtype>* blob = this->blobs_[0].get();
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU) {  // by kernels: a copy would wait for the GPU to finish
    for (int i = 0; i < 2; ++i) caffe_gpu_set(1, digits[i], blob->mutable_gpu_data() + i);
    written_to_ = blob->data().get();
    return;
  }
#endif
  std::copy_n(digits, 2, blob->mutable_cpu_data());
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::StartWorkers() {
  const AugmentedDataParameter& param = this->layer_param_.augmented_data_param();
  std::vector<Batch*> batches;
  for (uint32_t i = 0; i <= param.prefetch(); ++i) {  // one more is with the net
    const vector<int> shape = {batch_size_, records_->channels(), records_->height(), records_->width()};
    batches_.push_back(std::make_unique<Batch>(shape));
    batches.push_back(batches_.back().get());
  }
  for (uint32_t i = 0; i < param.threads(); ++i) workers_.push_back(std::make_unique<Worker>());
  prefetcher_ = std::make_unique<OrderedPrefetcher<Batch>>(
      batches, uint64_t(batch_size_) * solver_count_, param.threads(),
      [this](uint64_t position, int thread, Batch* batch) { FillBatch(position, workers_[thread].get(), batch); });
}

template <typename Dtype>
typename AugmentedDataLayer<Dtype>::Batch* AugmentedDataLayer<Dtype>::NextBatch() {
  // Not before: a restored position comes after the set-up, and a net that is only looked at needs no threads.
  if (!prefetcher_) StartWorkers();
  const uint64_t shared = ReadPosition();
  if (this->phase_ == TRAIN) {
    position_ = shared;
  } else if (shared != train_position_) {
    train_position_ = shared;
    if (position_ % records_->size() != 0) position_ = 0;
  }
  try {
    current_ = prefetcher_->Take(position_);
  } catch (const std::exception& error) {
    Require(false, error.what());
  }
  position_ += uint64_t(batch_size_) * solver_count_;
  if (this->phase_ == TRAIN) WritePosition();
  return current_;
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::FillBatch(uint64_t position, Worker* worker, Batch* batch) const {
  position += uint64_t(batch_size_) * solver_rank_;
  Dtype* data = batch->data.mutable_cpu_data();
  Dtype* labels = batch->labels.mutable_cpu_data();
  for (int i = 0; i < batch_size_; ++i) {
    labels[i] = records_->Read(position + i, &worker->buffers, data + batch->data.offset(i));
  }
#ifndef CPU_ONLY
  worker->PushToGpu(batch);
#endif
}

template <typename Dtype>
void AugmentedDataLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  Batch* batch = NextBatch();
  top[0]->set_cpu_data(batch->data.mutable_cpu_data());
  if (top.size() > 1) top[1]->set_cpu_data(batch->labels.mutable_cpu_data());
}

#ifdef CPU_ONLY
STUB_GPU_FORWARD(AugmentedDataLayer, Forward);
#else
template <typename Dtype>
void AugmentedDataLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (current_ && current_->released) CUDA_CHECK(cudaEventRecord(current_->released, cudaStreamDefault));
  Batch* batch = NextBatch();
  // gpu_data, since mutable_gpu_data would make the next fill copy the old batch back first.
  top[0]->set_gpu_data(const_cast<Dtype*>(batch->data.gpu_data()));
  if (top.size() > 1) top[1]->set_gpu_data(const_cast<Dtype*>(batch->labels.gpu_data()));
}
#endif

INSTANTIATE_CLASS(AugmentedDataLayer);
REGISTER_LAYER_CLASS(AugmentedData);

}  // namespace caffe
