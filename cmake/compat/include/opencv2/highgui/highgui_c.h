// Stands in for a header that OpenCV 4 dropped.
#include "opencv2/highgui/highgui.hpp"
