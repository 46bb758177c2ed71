use super::*;

/// Halves that are no NaN.
fn halves(n: usize, mut seed: u32) -> Vec<u16> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as u16 & 0xBBFF
    };
    (0..n).map(|_| next()).collect()
}

fn single(half: u16) -> f32 {
    let mut out = [0.0];
    assert!(crate::x86_64::halves::widen(&[half], &mut out));
    out[0]
}

fn all() -> impl Iterator<Item = StoredRows> {
    let wide = StoredRows::detect().filter(|rows| matches!(rows, StoredRows::Wide));
    let narrow = StoredRows::detect().map(|_| StoredRows::Narrow);
    wide.into_iter().chain(narrow)
}

fn codes(n: usize, seed: u32) -> Vec<i8> {
    let halves = halves(n, seed);
    halves.into_iter().map(|v| (v >> 4) as i8).collect()
}

fn singles(n: usize, seed: u32) -> Vec<f32> {
    halves(n, seed).into_iter().map(single).collect()
}

fn check<S: Stored, const T: usize>(
    rows: StoredRows,
    (width, n, first): (usize, usize, usize),
    make: fn(usize, u32) -> Vec<S>,
    value_of: fn(S, f32) -> f32,
) {
    let later = || Later::of(&[0u16; 100]);
    let stored = |rows: usize, seed| {
        let scales = if S::SCALED { rows } else { 0 };
        (make(width * rows, seed), singles(scales, seed + 9))
    };
    let scale = |scales: &[f32], row: usize| scales.get(row).copied().unwrap_or(1.0);
    let keys = stored(n.next_multiple_of(LANES), 1);
    let q = singles(width * T, 2);
    let q: [&[f32]; T] = std::array::from_fn(|t| &q[t * width..][..width]);
    let mut scores = [[f32::NAN; CHUNK]; T];
    rows.scores(
        q,
        Rows {
            cells: &keys.0,
            scales: &keys.1,
        },
        &mut scores,
        later(),
    );
    for (q, scores) in q.iter().zip(&scores) {
        for (k, score) in scores[..n].iter().enumerate() {
            let key = |i: usize| {
                let cell = keys.0[k / LANES * LANES * width + i * LANES + k % LANES];
                value_of(cell, scale(&keys.1, k))
            };
            let want = (0..width).fold(0f32, |sum, i| q[i].mul_add(key(i), sum));
            assert_eq!(score.to_bits(), want.to_bits(), "{rows:?} {T} {width} {n}");
        }
    }
    let values = stored(n - first, 3);
    let mut out = singles(width * T, 4);
    let want: Vec<f32> = (0..width * T)
        .map(|i| {
            let value = |k: usize| value_of(values.0[k * width + i % width], scale(&values.1, k));
            (0..n - first).fold(out[i], |sum, k| {
                scores[i / width][first + k].mul_add(value(k), sum)
            })
        })
        .collect();
    let mut outs = out.chunks_exact_mut(width);
    let outs = [(); T].map(|()| outs.next().unwrap_or_default());
    let values = Rows {
        cells: &values.0,
        scales: &values.1,
    };
    rows.add(&scores, first, values, outs, later());
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&out), bits(&want), "{rows:?} {T} {width} {n}");
}

fn check_all<S: Stored>(make: fn(usize, u32) -> Vec<S>, value_of: fn(S, f32) -> f32) {
    for rows in all() {
        for width in [16, 48, 64, 80, 96, 128, 256] {
            for (n, first) in [(1, 0), (15, 3), (16, 16), (17, 0), (33, 1), (64, 0)] {
                let sizes = (width, n, first);
                check::<S, 1>(rows, sizes, make, value_of);
                check::<S, 2>(rows, sizes, make, value_of);
                check::<S, 3>(rows, sizes, make, value_of);
                check::<S, 4>(rows, sizes, make, value_of);
                check::<S, 6>(rows, sizes, make, value_of);
                check::<S, 8>(rows, sizes, make, value_of);
            }
        }
    }
}

#[test]
fn sums_are_chains_in_the_order_of_their_terms() {
    check_all(halves, |half, _| single(half));
    check_all(codes, |code, scale| f32::from(code) * scale);
}
