"""One file per original data set: what it needs on disk, and the examples it makes of that.

Numbers of images, slices and labels are those of `task_adaptation` (VTAB's code, Apache-2.0) on
the versions of TensorFlow Datasets that it asks for; addresses, checksums and sizes in bytes are
those of the checksum files of TensorFlow Datasets 4.9.9. Licences are as the data set's page is
remembered to state them unless said otherwise: read them there.
"""
