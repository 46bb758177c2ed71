//! Replacing a file in one step.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{DataError, Result};

/// Writes `bytes` to `path`, making missing folders.
///
/// The bytes go to a file beside it, are flushed to disk, and are renamed over `path`: whatever
/// fails, a file that was there stays whole.
///
/// # Errors
/// If a folder or file cannot be written; the file beside it is then removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(DataError::io(folder, "make the folder"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        // The rename itself must reach the disk, too.
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        // Nothing more can be done if the leftover cannot be removed either.
        let _ = std::fs::remove_file(&aside);
        DataError::io(path, "write (is the disk full?)")(error)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn writes_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_failed_write_leaves_the_target_and_no_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        assert!(
            write_atomic(&path, b"bytes")
                .unwrap_err()
                .to_string()
                .contains("taken")
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(path.join("inside").exists());
    }
}
