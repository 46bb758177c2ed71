//! Files that are either wholly written or not written at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{QuantError, Result};

/// Replaces `path` by `bytes`; see [`write_atomic_with`].
///
/// # Errors
/// [`QuantError::Io`] where the system refuses, for example on a full disk.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Replaces `path` by what `write` puts into the file it is given.
///
/// The content goes to a new file in the same folder, is flushed to the disk, and only then takes
/// the name. After an error the new file is gone and `path` is as it was.
///
/// # Errors
/// [`QuantError::Io`] where the system refuses or `write` fails.
pub fn write_atomic_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    try_write_atomic_with(path, |file| write(file).map_err(|e| io_error(path, e)))
}

/// [`write_atomic_with`] for content that may turn out impossible while it is written: after an
/// error of `write`, too, the new file is gone and `path` is as it was.
///
/// # Errors
/// [`QuantError::Io`] where the system refuses, or the error of `write`.
pub fn try_write_atomic_with(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let io = |source| io_error(path, source);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let aside = Aside::beside(folder, path).map_err(io)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside.path)
        .map_err(io)?;
    write(&mut file)?;
    file.sync_all().map_err(io)?;
    drop(file);
    std::fs::rename(&aside.path, path).map_err(io)?;
    sync_folder(folder).map_err(io)
}

fn io_error(path: &Path, source: io::Error) -> QuantError {
    QuantError::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// A file that is removed when this goes away; after the rename there is none left to remove.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn beside(folder: &Path, path: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let aside = format!(
            ".{}.{}-{}.tmp",
            name.to_string_lossy(),
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = folder.join(aside);
        // Left by a killed process that had our id.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(Self { path }),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Nothing to tell anyone: the file is gone after a rename, and an error that kept it from
        // being written is already on its way.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Makes a rename last through a power cut.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_and_a_path_without_name_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_atomic(&dir.path().join("none/file"), b"x").is_err());
        assert!(write_atomic(Path::new("/"), b"x").is_err());
    }
}
