//! tritburn-engine.
