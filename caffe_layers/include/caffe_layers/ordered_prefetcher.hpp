#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace caffe {

/// Worker threads that fill batches ahead of their use, handed out in order whichever thread is done first.
/// Batches start at positions p, p + stride, p + 2 stride, ... of a stream that `fill` knows how to read anywhere.
template <typename Batch>
class OrderedPrefetcher {
 public:
  /// Fills a batch from a position; runs on worker thread 0 .. threads-1. What it throws, Take throws in its turn.
  using Fill = std::function<void(uint64_t position, int thread, Batch* batch)>;

  /// One batch is with the taker, all others are being filled or ready. They outlive the prefetcher.
  OrderedPrefetcher(const std::vector<Batch*>& batches, uint64_t stride, int threads, Fill fill)
      : stride_(stride), fill_(std::move(fill)) {
    for (Batch* batch : batches) slots_.push_back({batch, false, nullptr});
    for (int i = 0; i < threads; ++i) threads_.emplace_back(&OrderedPrefetcher::Work, this, i);
  }

  ~OrderedPrefetcher() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// The batch that starts at the position, the taker's until the next call. Any position but the one after the last
  /// batch drops everything prefetched.
  Batch* Take(uint64_t position) {
    std::unique_lock<std::mutex> lock(mutex_);
    released_ = taken_;
    if (!started_ || position != start_ + taken_ * stride_) Restart(position, &lock);
    changed_.notify_all();
    Slot& slot = slots_[taken_ % slots_.size()];
    changed_.wait(lock, [&] { return slot.ready; });
    slot.ready = false;
    ++taken_;
    if (slot.error) std::rethrow_exception(slot.error);
    return slot.batch;
  }

 private:
  struct Slot {
    Batch* batch;
    bool ready;
    std::exception_ptr error;
  };

  void Restart(uint64_t position, std::unique_lock<std::mutex>* lock) {
    started_ = false;
    changed_.wait(*lock, [&] { return busy_ == 0; });
    for (Slot& slot : slots_) slot.ready = false;
    start_ = position;
    claimed_ = taken_ = released_ = 0;
    started_ = true;
  }

  void Work(int thread) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || (started_ && claimed_ < released_ + slots_.size()); });
      if (stop_) return;
      Slot& slot = slots_[claimed_ % slots_.size()];
      const uint64_t position = start_ + claimed_ * stride_;
      ++claimed_;
      ++busy_;
      lock.unlock();
      slot.error = nullptr;
      try {
        fill_(position, thread, slot.batch);
      } catch (...) {
        slot.error = std::current_exception();
      }
      lock.lock();
      slot.ready = true;
      --busy_;
      changed_.notify_all();
    }
  }

  const uint64_t stride_;
  const Fill fill_;
  std::vector<Slot> slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Batches since start_, all under mutex_: given to a worker, given to the taker, given back by the taker.
  uint64_t start_ = 0, claimed_ = 0, taken_ = 0, released_ = 0;
  int busy_ = 0;
  bool started_ = false, stop_ = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

}  // namespace caffe
