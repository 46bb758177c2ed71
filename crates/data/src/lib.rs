//! tritburn-data.
