//! tritburn-eval.
