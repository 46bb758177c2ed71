//! Images as rows of patches, and where each patch lies.

/// Pixels `[count, side, side]` as patches `[count · (side / patch)², patch²]`, row by row.
///
/// # Panics
/// Where `patch` does not divide `side` or pixels are no whole images.
#[must_use]
pub fn patchify(pixels: &[f32], side: usize, patch: usize) -> Vec<f32> {
    let mut out = vec![0.0; pixels.len()];
    walk(pixels.len(), side, patch, |at, pixel| {
        out[at] = pixels[pixel];
    });
    out
}

/// The images that [`patchify`] was given.
///
/// # Panics
/// As [`patchify`].
#[must_use]
pub fn unpatchify(patches: &[f32], side: usize, patch: usize) -> Vec<f32> {
    let mut out = vec![0.0; patches.len()];
    walk(patches.len(), side, patch, |at, pixel| {
        out[pixel] = patches[at];
    });
    out
}

/// Calls `visit` with every place among the patches and the pixel that belongs there.
fn walk(len: usize, side: usize, patch: usize, mut visit: impl FnMut(usize, usize)) {
    assert!(
        patch > 0 && side > 0 && side.is_multiple_of(patch) && len.is_multiple_of(side * side),
        "{len} pixels are no images of side {side} in patches of {patch}"
    );
    let mut at = 0;
    for image in (0..len).step_by(side * side) {
        for top in (0..side).step_by(patch) {
            for left in (0..side).step_by(patch) {
                for row in top..top + patch {
                    for column in left..left + patch {
                        visit(at, image + row * side + column);
                        at += 1;
                    }
                }
            }
        }
    }
}

/// Sines and cosines of row and column of every patch, `[side², width]`; half of `width` for each
/// (Peebles & Xie 2023, after the masked autoencoder).
#[must_use]
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
pub fn positions(side: usize, width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let axis = |at: usize| {
        let angle = move |i: usize| at as f64 / 10_000f64.powf(i as f64 / quarter as f64);
        let wave = move |f: fn(f64) -> f64| (0..quarter).map(move |i| f(angle(i)) as f32);
        wave(f64::sin).chain(wave(f64::cos))
    };
    (0..side * side)
        .flat_map(|patch| axis(patch / side).chain(axis(patch % side)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_precision_loss)]
    fn patches_come_back_as_images() {
        let image: Vec<f32> = (0..2 * 36).map(|i| i as f32).collect();
        let patches = patchify(&image, 6, 3);
        assert_eq!(&patches[..9], &[0., 1., 2., 6., 7., 8., 12., 13., 14.]);
        assert_eq!(&patches[9..12], &[3., 4., 5.]);
        assert_eq!(unpatchify(&patches, 6, 3), image);
    }

    #[test]
    fn every_place_is_its_own() {
        let table = positions(7, 16);
        let rows: Vec<&[f32]> = table.chunks(16).collect();
        assert_eq!(rows.len(), 49);
        for (i, a) in rows.iter().enumerate() {
            assert!(rows[..i].iter().all(|b| a != b), "patch {i}");
        }
    }
}
