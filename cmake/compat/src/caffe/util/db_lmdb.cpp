// Caffe's db_lmdb.cpp that says what to do about an LMDB that is missing or empty. Caffe ends in a bare "No such file
// or directory" for the one and in std::bad_alloc for the other.
#ifdef USE_LMDB
#include "caffe/util/db_lmdb.hpp"

#include <sys/stat.h>

#include <string>

namespace {

const char kAdvice[] =
    ". Make it with the command of its data set, such as `python data_prep/fashion_mnist.py` or `python "
    "data_prep/cifar.py --dataset cifar10`, or from your own images with `convert_imageset`. A relative path starts at "
    "the folder that caffe runs in.";

// mdb_env_open that ends the process if there is nothing to read.
int OpenToRead(MDB_env* env, const char* path, unsigned int flags, mdb_mode_t mode) {
  struct stat info;
  const bool reads = flags & MDB_RDONLY;
  if (reads && stat((std::string(path) + "/data.mdb").c_str(), &info) != 0) {
    LOG(FATAL) << "There is no LMDB at " << path << " (data.mdb is missing)" << kAdvice;
  }
  const int status = mdb_env_open(env, path, flags, mode);
  MDB_stat records;
  if (reads && status == MDB_SUCCESS && mdb_env_stat(env, &records) == MDB_SUCCESS && records.ms_entries == 0) {
    LOG(FATAL) << "The LMDB at " << path << " is empty" << kAdvice;
  }
  return status;
}

}  // namespace

#define mdb_env_open OpenToRead
#include "src/caffe/util/db_lmdb.cpp"
#endif  // USE_LMDB
