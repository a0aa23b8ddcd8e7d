// Stands in for a header that OpenCV 4 split up: Caffe only reads, writes and resizes images.
#ifndef COMPAT_OPENCV2_HIGHGUI_HIGHGUI_HPP_
#define COMPAT_OPENCV2_HIGHGUI_HIGHGUI_HPP_

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

// OpenCV 2's names.
#define CV_LOAD_IMAGE_COLOR cv::IMREAD_COLOR
#define CV_LOAD_IMAGE_GRAYSCALE cv::IMREAD_GRAYSCALE

#endif  // COMPAT_OPENCV2_HIGHGUI_HIGHGUI_HPP_
