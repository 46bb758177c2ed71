//! Images side by side as one PNG.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// Pixels between two images and around all.
const GAP: usize = 2;
/// Grey of the gaps: neither background nor ink.
const GREY: u8 = 96;
/// What every PNG starts with (W3C PNG, third edition, §5.2).
const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];
/// 8 bits of grey, deflate, the five standard filters, no interlace (§11.2.1).
const GREY_8: [u8; 5] = [8, 0, 0, 0, 0];

/// PNG of 8-bit grey with `columns` images of `side`×`side` in a row; `pixels` is
/// `[images, side, side]`.
///
/// # Errors
/// Where the pixels are no whole rows of images, or the picture would be too large for PNG.
pub(crate) fn encode(pixels: &[u8], side: usize, columns: usize) -> Result<Vec<u8>> {
    let (image, row) = (side * side, columns * side * side);
    ensure!(
        row > 0 && !pixels.is_empty() && pixels.len().is_multiple_of(row),
        "{} pixels are no rows of {columns} images of {side}×{side}",
        pixels.len()
    );
    let rows = pixels.len() / row;
    let width = columns * (side + GAP) + GAP;
    let height = rows * (side + GAP) + GAP;
    // Before every line stands the number of its filter: 0, none.
    let stride = width + 1;
    let mut canvas = vec![GREY; stride * height];
    canvas.iter_mut().step_by(stride).for_each(|b| *b = 0);
    for (i, image) in pixels.chunks_exact(image).enumerate() {
        let (top, left) = (i / columns, i % columns);
        for (y, line) in image.chunks_exact(side).enumerate() {
            let at = (GAP + top * (side + GAP) + y) * stride + 1 + GAP + left * (side + GAP);
            canvas[at..at + side].copy_from_slice(line);
        }
    }
    let mut header = u32::try_from(width)?.to_be_bytes().to_vec();
    header.extend(u32::try_from(height)?.to_be_bytes());
    header.extend(GREY_8);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&canvas)?;
    let mut out = SIGNATURE.to_vec();
    chunk(&mut out, b"IHDR", &header)?;
    chunk(&mut out, b"IDAT", &packed.finish()?)?;
    chunk(&mut out, b"IEND", &[])?;
    Ok(out)
}

/// Length, name, data, and the checksum of name and data (§5.3).
fn chunk(out: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut crc = Crc::new();
    crc.update(name);
    crc.update(data);
    out.extend(length.to_be_bytes());
    out.extend(name);
    out.extend(data);
    out.extend(crc.sum().to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use flate2::read::ZlibDecoder;

    use super::*;

    #[test]
    fn images_stand_where_they_belong() {
        // Six images of 3×3 in two rows; image i is all i.
        let pixels: Vec<u8> = (0..6).flat_map(|i| [i; 9]).collect();
        let bytes = encode(&pixels, 3, 3).unwrap();
        assert_eq!(&bytes[12..24], b"IHDR\x00\x00\x00\x11\x00\x00\x00\x0c");
        assert_eq!(&bytes[bytes.len() - 8..], b"IEND\xaeB`\x82");
        let length = u32::from_be_bytes(bytes[33..37].try_into().unwrap()) as usize;
        assert_eq!(&bytes[37..41], b"IDAT");
        let mut canvas = Vec::new();
        ZlibDecoder::new(&bytes[41..41 + length])
            .read_to_end(&mut canvas)
            .unwrap();
        assert_eq!(canvas.len(), 18 * 12);
        for i in 0..6u8 {
            let (x, y) = (3 + usize::from(i % 3) * 5, 2 + usize::from(i / 3) * 5);
            assert_eq!(canvas[y * 18 + x], i);
            assert_eq!(canvas[(y + 2) * 18 + x + 2], i);
        }
        assert_eq!(canvas[..2], [0, GREY]);
        assert!(encode(&pixels[..53], 3, 3).is_err());
        assert!(encode(&[], 3, 3).is_err());
    }
}
