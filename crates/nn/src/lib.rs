//! tritburn-nn.
