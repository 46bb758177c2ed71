//! The four files of MNIST, and how to know them.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tritburn_quant::fs::write_atomic;

use crate::error::{DataError, Result};

/// A file of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MnistFile {
    /// Name, without `.gz`.
    pub name: &'static str,
    /// Bytes once unpacked.
    bytes: u64,
    /// SHA-256 of these bytes, in hexadecimal: of the content, as mirrors pack it each in their way.
    sha256: &'static str,
}

/// Test set (`t10k`) and training set of MNIST (LeCun, Cortes & Burges).
pub const FILES: [MnistFile; 4] = [
    MnistFile {
        name: "t10k-images-idx3-ubyte",
        bytes: 16 + 10_000 * 784,
        sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    },
    MnistFile {
        name: "t10k-labels-idx1-ubyte",
        bytes: 8 + 10_000,
        sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    MnistFile {
        name: "train-images-idx3-ubyte",
        bytes: 16 + 60_000 * 784,
        sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    },
    MnistFile {
        name: "train-labels-idx1-ubyte",
        bytes: 8 + 60_000,
        sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    },
];

impl MnistFile {
    /// Name of the packed file.
    #[must_use]
    pub fn packed_name(&self) -> String {
        format!("{}.gz", self.name)
    }

    /// Longest packed file that can be this one: gzip adds little to what it cannot shorten.
    #[must_use]
    pub fn most_packed_bytes(&self) -> u64 {
        self.bytes + self.bytes / 100 + 1024
    }

    /// Whether `packed` (gzip) holds this file and nothing else.
    ///
    /// # Errors
    /// [`DataError::Mnist`] where it does not.
    pub fn matches(&self, packed: &[u8]) -> Result<()> {
        let wrong = |message: String| DataError::Mnist {
            name: self.packed_name(),
            message,
        };
        let mut content = Vec::new();
        GzDecoder::new(packed)
            .take(self.bytes + 1)
            .read_to_end(&mut content)
            .map_err(|e| wrong(format!("is no gzip file: {e}")))?;
        let sum: String = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if sum != self.sha256 {
            let message = format!("holds SHA-256 {sum}, expected {}", self.sha256);
            return Err(wrong(message));
        }
        Ok(())
    }

    /// Writes `packed` to `dir` if it [`matches`](Self::matches); returns the file.
    ///
    /// # Errors
    /// [`DataError::Mnist`] where the content is another one; nothing is written then. As
    /// [`write_atomic`] where the system refuses.
    pub fn save(&self, dir: &Path, packed: &[u8]) -> Result<PathBuf> {
        self.matches(packed)?;
        std::fs::create_dir_all(dir).map_err(DataError::io(dir, "make the folder"))?;
        let path = dir.join(self.packed_name());
        write_atomic(&path, packed)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn other_content_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[0; 100]).unwrap();
        let packed = encoder.finish().unwrap();
        for (bytes, word) in [(&packed[..], "SHA-256"), (b"<html>", "no gzip file")] {
            let error = FILES[1].save(dir.path(), bytes).unwrap_err().to_string();
            assert!(
                error.contains("t10k-labels") && error.contains(word),
                "{error}"
            );
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn golden_mnist_is_known() {
        let data = std::env::var("TRITBURN_DATA_DIR").map_or_else(
            |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        );
        let dir = tempfile::tempdir().unwrap();
        for file in &FILES[..2] {
            let path = data.join("mnist").join(file.packed_name());
            let Ok(packed) = std::fs::read(&path) else {
                eprintln!("skipped: no {}", path.display());
                return;
            };
            file.save(dir.path(), &packed).unwrap();
        }
    }
}
