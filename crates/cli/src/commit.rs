//! Which commit this program is.

use std::process::{Command, Stdio};

/// Commit of the clone that holds the executable; `None` where it was installed elsewhere or git
/// is absent.
pub(crate) fn of_this_program() -> Option<String> {
    let executable = std::env::current_exe().ok()?;
    let output = Command::new("git")
        .arg("-C")
        .arg(executable.parent()?)
        .args(["rev-parse", "--verify", "HEAD"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let hash = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| hash.trim().to_owned())
}
