//! Read-only memory maps: the one place outside the kernels that needs `unsafe`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod guard;
#[cfg(not(target_os = "linux"))]
#[path = "mmap/no_guard.rs"]
mod guard;

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;

use crate::error::{QuantError, Result};
use guard::Guard;

/// A whole file, mapped for reading.
///
/// Files written by [`crate::fs`] are replaced as a whole, which does nothing to a map. Where somebody
/// writes into the file or shortens it meanwhile, other values are read, or on Linux zeros, and
/// [`Self::check`] is an error afterwards.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    file: File,
    len: u64,
    modified: Option<SystemTime>,
    // None for an empty file, which some systems refuse to map. The guard is dropped first.
    map: Option<(Guard, Mmap)>,
}

impl Mapped {
    /// Maps `path`.
    ///
    /// # Errors
    /// [`QuantError::Io`] where the file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| QuantError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let map = if metadata.len() == 0 {
            None
        } else {
            // SAFETY: the map is private to this value and only ever read. Others may write into the
            // file; all that is made of its bytes are numbers, of which every pattern is one, texts
            // that are copied before they are checked, and places that are checked before they are
            // used.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            let guard = Guard::new(&map).ok_or_else(|| {
                io(std::io::Error::other(
                    "too many files are mapped at once; store the model in fewer shards",
                ))
            })?;
            Some((guard, map))
        };
        Ok(Self {
            path: path.to_path_buf(),
            file,
            len: metadata.len(),
            modified: metadata.modified().ok(),
            map,
        })
    }

    /// Says that the bytes of `range` are not needed for now: their memory no longer counts as this process's.
    /// They are still there, and read from the file again where somebody looks.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some((_, map)) = &self.map
            && range.start < range.end
            && range.end <= map.len()
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is of a file and never written to, so what is read later are the file's bytes
            // again, as at the first time; the range is inside it. It is advice: to fail is to do nothing.
            let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        }
    }

    /// Whether the file is what it was when it was mapped: to be asked after the last read.
    ///
    /// # Errors
    /// [`QuantError::Tensor`] where it was shortened or written to, [`QuantError::Io`] where the
    /// system does not tell.
    pub fn check(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|source| QuantError::Io {
            path: self.path.clone(),
            source,
        })?;
        let gone = |(guard, _): &(Guard, Mmap)| guard.found_it_gone();
        let what = if self.map.as_ref().is_some_and(gone) || now.len() < self.len {
            "shortened"
        } else if now.modified().ok() != self.modified {
            "changed"
        } else {
            return Ok(());
        };
        Err(QuantError::tensor(
            &self.path,
            format!("the file was {what} while it was read; load it again"),
        ))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |(_, map)| map)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const LEN: usize = 1 << 20;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, vec![7u8; LEN]).unwrap();
        (dir, path)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_shortened_is_an_error() {
        let (_dir, path) = file();
        let (_other_dir, other) = file();
        let (map, other) = (Mapped::open(&path).unwrap(), Mapped::open(&other).unwrap());
        map.check().unwrap();
        assert_eq!(map[LEN - 1], 7);
        let writer = File::options().write(true).open(&path).unwrap();
        writer.set_len(10_000).unwrap();
        assert!(map.check().is_err());
        // On two threads: without the guard nobody lives to tell.
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(map[LEN / 2..].iter().all(|&b| b == 0)));
            }
        });
        writer.set_len(LEN as u64).unwrap();
        let error = map.check().unwrap_err().to_string();
        assert!(
            error.contains("shortened") && error.contains("weights"),
            "{error}"
        );
        assert!(other.iter().all(|&b| b == 7));
        other.check().unwrap();
        // With a map goes what was known of it.
        drop(map);
        Mapped::open(&path).unwrap().check().unwrap();
    }

    #[test]
    fn what_is_released_is_read_again() {
        let (_dir, path) = file();
        let map = Mapped::open(&path).unwrap();
        assert!(map.iter().all(|&b| b == 7));
        for range in [0..LEN, 5000..9000, 7..7, LEN - 1..LEN, 0..LEN + 1] {
            map.release(range);
            assert!(map.iter().all(|&b| b == 7));
        }
        map.check().unwrap();
    }

    #[test]
    fn a_file_that_is_written_to_is_an_error() {
        let (_dir, path) = file();
        let map = Mapped::open(&path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"new").unwrap();
        drop(writer);
        assert_eq!(map.len(), LEN);
        assert!(map.check().unwrap_err().to_string().contains("changed"));
    }

    #[test]
    fn a_file_that_is_replaced_stays_what_it_was() {
        let (dir, path) = file();
        let map = Mapped::open(&path).unwrap();
        let new = dir.path().join("new");
        std::fs::write(&new, "short").unwrap();
        std::fs::rename(&new, &path).unwrap();
        assert!(map.iter().all(|&b| b == 7));
        map.check().unwrap();
    }
}
