"""Original image data sets into LMDBs of Caffe's Datum records, one command per data set."""
