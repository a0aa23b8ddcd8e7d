#include "caffe_layers/lmdb_records.hpp"

#include <glog/logging.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <stdexcept>

namespace caffe {
namespace {

[[noreturn]] void Fail(const std::string& path, const std::string& what) {
  throw std::runtime_error("LMDB '" + path + "' " + what +
                           ". Make it anew with the command for its data set in data_prep, for example "
                           "`python data_prep/cifar.py --dataset cifar10`");
}

void Check(int status, const std::string& path, const char* doing) {
  if (status != MDB_SUCCESS) Fail(path, std::string("cannot be ") + doing + ": " + mdb_strerror(status));
}

// LMDB found a page that makes no sense; it has no way to go on from here.
void FailOnDamagedPage(MDB_env* environment, const char* message) {
  LOG(FATAL) << "LMDB '" << static_cast<const char*>(mdb_env_get_userctx(environment)) << "' is damaged: " << message;
}

// Keys may be binary.
std::string Printable(const MDB_val& key) {
  std::string text;
  for (size_t i = 0; i < key.mv_size; ++i) {
    const unsigned char c = static_cast<const unsigned char*>(key.mv_data)[i];
    char escaped[5];
    snprintf(escaped, sizeof(escaped), c >= 0x20 && c < 0x7f ? "%c" : "\\x%02x", c);
    text += escaped;
  }
  return text;
}

struct Cursor {
  Cursor(MDB_txn* transaction, MDB_dbi database, const std::string& path) {
    Check(mdb_cursor_open(transaction, database, &cursor), path, "read");
  }
  ~Cursor() { mdb_cursor_close(cursor); }
  MDB_cursor* cursor;
};

}  // namespace

LmdbRecords::LmdbRecords(const std::string& path) : path_(path) {
  try {
    Open();
    ReadIndex();
  } catch (...) {
    Close();
    throw;
  }
}

LmdbRecords::~LmdbRecords() { Close(); }

void LmdbRecords::Close() {
  mdb_txn_abort(transaction_);
  mdb_env_close(environment_);
}

void LmdbRecords::Open() {
  struct stat file;
  if (stat((path_ + "/data.mdb").c_str(), &file) != 0) Fail(path_, "does not exist (no file data.mdb in that folder)");
  Check(mdb_env_create(&environment_), path_, "opened");
  mdb_env_set_userctx(environment_, const_cast<char*>(path_.c_str()));
  mdb_env_set_assert(environment_, FailOnDamagedPage);
  // A finished data set is never written to, so it needs no locks: it may lie on a read-only or network disk, any
  // number of processes and of layers in one process may read it, and a killed one leaves nothing behind.
  Check(mdb_env_open(environment_, path_.c_str(), MDB_RDONLY | MDB_NOTLS | MDB_NOLOCK, 0), path_, "opened");
  // Touching a page beyond the end of a file cut short would end the process with SIGBUS.
  MDB_envinfo info;
  MDB_stat pages;
  mdb_env_info(environment_, &info);
  mdb_env_stat(environment_, &pages);
  const size_t expected = (info.me_last_pgno + 1) * pages.ms_psize;
  if (static_cast<size_t>(file.st_size) < expected) {
    Fail(path_,
         "is cut short: data.mdb has " + std::to_string(file.st_size) + " of " + std::to_string(expected) + " bytes");
  }
  Check(mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &transaction_), path_, "read");
  Check(mdb_dbi_open(transaction_, nullptr, 0, &database_), path_, "read");
}

void LmdbRecords::ReadIndex() {
  MDB_stat pages;
  Check(mdb_stat(transaction_, database_, &pages), path_, "read");
  if (pages.ms_entries == 0) Fail(path_, "is empty");
  if (pages.ms_entries > UINT32_MAX) Fail(path_, "has more than 2^32 - 1 records");
  index_.reserve(pages.ms_entries);
  const Cursor cursor(transaction_, database_, path_);
  MDB_val key, value;
  int status;
  auto reported = std::chrono::steady_clock::now();
  while ((status = mdb_cursor_get(cursor.cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
    index_.push_back(value);
    const auto now = std::chrono::steady_clock::now();
    if (now - reported > std::chrono::seconds(10)) {
      LOG(INFO) << "Indexing " << path_ << ": " << index_.size() << " of " << pages.ms_entries << " records";
      reported = now;
    }
  }
  if (status != MDB_NOTFOUND) Check(status, path_, "read");
  if (index_.size() != pages.ms_entries) {
    Fail(path_, "is damaged: it holds " + std::to_string(index_.size()) + " records and claims " +
                    std::to_string(pages.ms_entries));
  }
}

void LmdbRecords::Read(uint32_t record, Datum* datum) const {
  const MDB_val& value = index_[record];
  if (!datum->ParseFromArray(value.mv_data, static_cast<int>(value.mv_size))) {
    throw std::runtime_error("is not a Datum (" + std::to_string(value.mv_size) + " bytes)");
  }
}

std::string LmdbRecords::Describe(uint32_t record) const {
  const std::lock_guard<std::mutex> lock(transaction_mutex_);
  const Cursor cursor(transaction_, database_, path_);
  MDB_val key{}, value;
  for (uint32_t i = 0; i <= record; ++i) Check(mdb_cursor_get(cursor.cursor, &key, &value, MDB_NEXT), path_, "read");
  return "record " + std::to_string(record) + " (key " + Printable(key) + ") of '" + path_ + "'";
}

}  // namespace caffe
