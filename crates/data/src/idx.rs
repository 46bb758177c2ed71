//! IDX files, the format of MNIST: a magic number, the sizes, the bytes; plain or as gzip.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use tritburn_quant::fs::write_atomic;

use crate::dice::Dice;
use crate::error::{DataError, Result};

/// Element type of an IDX file: unsigned bytes.
const UBYTE: u8 = 0x08;
/// No file may say that it holds more bytes.
const MAX_BYTES: u64 = 1 << 30;
/// Stream of the dice that choose what is held out.
const HELD_OUT: u64 = 0x6865_6c64;

/// Images of one size with one byte a pixel, and what each shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImages {
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub cols: usize,
    /// `[images, rows, cols]`, row-major; 0 is the background.
    pub pixels: Vec<u8>,
    /// One for each image.
    pub labels: Vec<u8>,
}

impl LabelledImages {
    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels of image `i`.
    #[must_use]
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.rows * self.cols;
        &self.pixels[i * size..(i + 1) * size]
    }

    /// The images at `places`, in that order.
    #[must_use]
    pub fn select(&self, places: &[usize]) -> Self {
        Self {
            pixels: places
                .iter()
                .flat_map(|&i| self.image(i))
                .copied()
                .collect(),
            labels: places.iter().map(|&i| self.labels[i]).collect(),
            ..*self
        }
    }

    /// What to train on, and `held_out` images to measure with: a seeded choice, as files may be
    /// in an order that means something.
    ///
    /// # Errors
    /// [`DataError::Loader`] where nothing would be left to train on.
    pub fn hold_out(&self, held_out: usize, seed: u64) -> Result<(Self, Self)> {
        if held_out >= self.len() {
            return Err(DataError::Loader {
                message: format!(
                    "{held_out} images held out of {} leave none to train on; hold out fewer",
                    self.len()
                ),
            });
        }
        let mut places: Vec<usize> = (0..self.len()).collect();
        Dice::new(seed, HELD_OUT).shuffle(&mut places);
        let (held, train) = places.split_at(held_out);
        Ok((self.select(train), self.select(held)))
    }
}

/// Reads `{split}-images-idx3-ubyte` and `{split}-labels-idx1-ubyte` of a folder, each plain or
/// with `.gz` behind its name.
///
/// # Errors
/// Where a file is absent, is no IDX file or says of itself what is not so, and where images and
/// labels are not equal in number.
pub fn read_labelled(dir: &Path, split: &str) -> Result<LabelledImages> {
    let images = find(dir, &format!("{split}-images-idx3-ubyte"))?;
    let labels = find(dir, &format!("{split}-labels-idx1-ubyte"))?;
    let ([count, rows, cols], pixels) = read::<3>(&images)?;
    let ([named], labels_read) = read::<1>(&labels)?;
    if count != named {
        let message = format!(
            "says {named}, but {} holds {count} images; fetch both files from one source",
            images.display()
        );
        return Err(idx(&labels, "number of labels", message));
    }
    if count == 0 || rows == 0 || cols == 0 {
        let message = format!("{count} images of {rows}×{cols} hold nothing; fetch the file again");
        return Err(idx(&images, "sizes", message));
    }
    Ok(LabelledImages {
        rows,
        cols,
        pixels,
        labels: labels_read,
    })
}

fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let plain = dir.join(name);
    let packed = dir.join(format!("{name}.gz"));
    [&plain, &packed]
        .into_iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| DataError::MissingImages {
            dir: dir.to_path_buf(),
            name: name.to_owned(),
        })
}

/// Sizes and bytes of an IDX file of `D` dimensions. No more is allocated than the file really
/// holds, whatever its header says.
fn read<const D: usize>(path: &Path) -> Result<([usize; D], Vec<u8>)> {
    let open = |action| DataError::io(path, action);
    let mut file = BufReader::new(File::open(path).map_err(open("open"))?);
    let mut reader: Box<dyn Read> = if is_gzip(&mut file).map_err(open("read"))? {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let short = |field: &'static str| {
        move |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => idx(
                path,
                field,
                "the file ends before it; fetch it again".into(),
            ),
            _ => DataError::io(path, "read or unpack")(source),
        }
    };
    let mut magic = [0; 4];
    reader
        .read_exact(&mut magic)
        .map_err(short("magic number"))?;
    let expected = [0, 0, UBYTE, u8::try_from(D).unwrap_or(u8::MAX)];
    if magic != expected {
        let message = format!(
            "is {magic:02x?}, not {expected:02x?} (bytes in {D} dimensions); pass an IDX file of \
             {}",
            if D == 3 { "images" } else { "labels" }
        );
        return Err(idx(path, "magic number", message));
    }
    let mut sizes = [0; D];
    let mut total = 1u64;
    for (i, size) in sizes.iter_mut().enumerate() {
        let field = ["number of items", "rows", "columns"][i.min(2)];
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(short(field))?;
        let value = u32::from_be_bytes(bytes);
        *size = value as usize;
        total = total.saturating_mul(u64::from(value));
        if total > MAX_BYTES {
            let message = format!(
                "is {value}, with which the file would hold more than {MAX_BYTES} bytes; it is \
                 damaged, fetch it again"
            );
            return Err(idx(path, field, message));
        }
    }
    let mut data = Vec::new();
    let mut limited = reader.take(total + 1);
    limited.read_to_end(&mut data).map_err(short("data"))?;
    let found = data.len() as u64;
    if found != total {
        let message = match found.cmp(&total) {
            std::cmp::Ordering::Less => format!(
                "{found} bytes, but the header asks for {total} ({sizes:?}); fetch the file again"
            ),
            _ => format!(
                "go on behind the {total} bytes that the header asks for ({sizes:?}); the header \
                 or the file is damaged, fetch it again"
            ),
        };
        return Err(idx(path, "data", message));
    }
    Ok((sizes, data))
}

fn is_gzip(file: &mut BufReader<File>) -> std::io::Result<bool> {
    use std::io::BufRead;
    Ok(file.fill_buf()?.starts_with(&[0x1f, 0x8b]))
}

fn idx(path: &Path, field: &'static str, message: String) -> DataError {
    DataError::Idx {
        path: path.to_path_buf(),
        field,
        message,
    }
}

/// Writes images and labels as gzip under the names that [`read_labelled`] looks for, and returns
/// the two files.
///
/// # Errors
/// If the folder or a file cannot be written, or there are more than 2³² − 1 images.
pub fn write_labelled(dir: &Path, split: &str, data: &LabelledImages) -> Result<[PathBuf; 2]> {
    std::fs::create_dir_all(dir).map_err(DataError::io(dir, "make the folder"))?;
    let sizes = [data.len(), data.rows, data.cols];
    let images = dir.join(format!("{split}-images-idx3-ubyte.gz"));
    write(&images, &sizes, &data.pixels)?;
    let labels = dir.join(format!("{split}-labels-idx1-ubyte.gz"));
    write(&labels, &sizes[..1], &data.labels)?;
    Ok([images, labels])
}

fn write(path: &Path, sizes: &[usize], data: &[u8]) -> Result<()> {
    let encode = || -> std::io::Result<Vec<u8>> {
        use std::io::Write;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let dimensions = u8::try_from(sizes.len()).map_err(std::io::Error::other)?;
        encoder.write_all(&[0, 0, UBYTE, dimensions])?;
        for &size in sizes {
            let size = u32::try_from(size).map_err(std::io::Error::other)?;
            encoder.write_all(&size.to_be_bytes())?;
        }
        encoder.write_all(data)?;
        encoder.finish()
    };
    let bytes = encode().map_err(DataError::io(path, "encode"))?;
    Ok(write_atomic(path, &bytes)?)
}

#[cfg(test)]
#[path = "idx_tests.rs"]
mod tests;
