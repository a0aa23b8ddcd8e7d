// Caffe's net.cpp with HDF5 weights: some copies of it lost the branch of CopyTrainedLayersFrom that reads them. And
// with CUDA, ClearParamDiffs as one launch where Caffe has one for each blob, well over a hundred in a deep net. The
// specialisations below take the place of the functions in the file.
#include "caffe/net.hpp"
#include "caffe/util/hdf5.hpp"
#ifndef CPU_ONLY
#include "caffe_layers/kernels/clear_cuda.hpp"
#endif

namespace caffe {
template <>
void Net<float>::CopyTrainedLayersFrom(const string& trained_filename);
template <>
void Net<double>::CopyTrainedLayersFrom(const string& trained_filename);
#ifndef CPU_ONLY
template <>
void Net<float>::ClearParamDiffs();
template <>
void Net<double>::ClearParamDiffs();
#endif
}  // namespace caffe

#include "src/caffe/net.cpp"

namespace caffe {

template <typename Dtype>
static void CopyTrainedLayers(const string& filename, Net<Dtype>* net) {
#ifdef USE_HDF5
  // As Caffe writes them: PREFIX_iter_N.caffemodel.h5.
  htri_t is_hdf5;
  H5E_BEGIN_TRY { is_hdf5 = H5Fis_hdf5(filename.c_str()); }
  H5E_END_TRY;
  if (is_hdf5 > 0) {
    net->CopyTrainedLayersFromHDF5(filename);
    return;
  }
#endif
  net->CopyTrainedLayersFromBinaryProto(filename);
}

template <>
void Net<float>::CopyTrainedLayersFrom(const string& trained_filename) {
  CopyTrainedLayers(trained_filename, this);
}

template <>
void Net<double>::CopyTrainedLayersFrom(const string& trained_filename) {
  CopyTrainedLayers(trained_filename, this);
}

#ifndef CPU_ONLY
template <typename Dtype>
static void ClearDiffs(const vector<Blob<Dtype>*>& blobs) {
  if (Caffe::mode() == Caffe::CPU) {
    for (Blob<Dtype>* blob : blobs) caffe_set(blob->count(), Dtype(0), blob->mutable_cpu_diff());
    return;
  }
  vector<caffe_layers::DeviceArray> diffs;
  for (Blob<Dtype>* blob : blobs) diffs.push_back({blob->mutable_gpu_diff(), blob->count() * sizeof(Dtype)});
  caffe_layers::clear_arrays_cuda(diffs.data(), diffs.size(), cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

template <>
void Net<float>::ClearParamDiffs() {
  ClearDiffs(learnable_params_);
}

template <>
void Net<double>::ClearParamDiffs() {
  ClearDiffs(learnable_params_);
}
#endif

}  // namespace caffe
