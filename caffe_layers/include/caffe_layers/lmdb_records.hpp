#pragma once

#include <lmdb.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// Random access to the Datum records of an LMDB, by their number in the order of the keys.
/// The index takes 16 bytes a record; the pixels stay in the file's pages, which the system reads and keeps as it can.
/// Errors are std::runtime_error. The constructor's name the path; Read's leave it to the caller to name the record.
class LmdbRecords {
 public:
  explicit LmdbRecords(const std::string& path);
  ~LmdbRecords();
  LmdbRecords(const LmdbRecords&) = delete;
  LmdbRecords& operator=(const LmdbRecords&) = delete;

  uint32_t size() const { return static_cast<uint32_t>(index_.size()); }
  /// Any number of threads may read at once.
  void Read(uint32_t record, Datum* datum) const;
  /// The record for messages: "record 7 (key 00000007) of PATH". Walks through the file.
  std::string Describe(uint32_t record) const;

 private:
  void Open();
  void ReadIndex();
  void Close();

  const std::string path_;
  MDB_env* environment_ = nullptr;
  MDB_txn* transaction_ = nullptr;  // stays open: values keep their addresses as long
  MDB_dbi database_ = 0;
  std::vector<MDB_val> index_;
  mutable std::mutex transaction_mutex_;
};

}  // namespace caffe
