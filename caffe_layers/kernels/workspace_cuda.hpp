#pragma once

#include <cstddef>

namespace caffe_layers {

/// Memory on the calling thread's current device that lasts until the thread's next call, at least `bytes` long; work
/// queued on one stream may use it in turn. Throws std::bad_alloc. Kept from call to call, it only grows, which waits
/// for the device.
void* device_workspace(size_t bytes);

}  // namespace caffe_layers
