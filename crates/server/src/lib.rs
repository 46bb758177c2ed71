//! tritburn-server.
