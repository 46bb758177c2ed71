//! tritburn-train.
