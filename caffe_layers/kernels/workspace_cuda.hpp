#pragma once

#include <cstddef>
#include <string>

namespace caffe_layers {

/// Memory on the calling thread's current device that lasts until the thread's next call, at least `bytes` long; work
/// queued on one stream may use it in turn. Kept from call to call, it only grows, which waits for the device. Where
/// the device has too little left, throws std::runtime_error with a message that begins with `user`.
void* device_workspace(size_t bytes, const std::string& user);

}  // namespace caffe_layers
