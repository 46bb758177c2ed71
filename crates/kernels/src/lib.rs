//! tritburn-kernels.
