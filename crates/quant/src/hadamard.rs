//! Orthogonal Hadamard matrices as Kronecker products of two small ones (BitNet v2, arXiv
//! 2504.18415, §2.2).

/// Largest order of a factor that is not a power of two: beyond, the dense factor costs more than
/// the projection that follows.
const MAX_PALEY: usize = 512;

/// `H = A ⊗ B`, entries ±1, `H·Hᵀ = order · I`.
///
/// A token seen as a matrix `X` `[a, b]`, row by row, is turned into `Aᵀ·X·B / √(a·b)`. Factors
/// that are powers of two are Sylvester's, which makes the whole matrix the usual one where the
/// width is a power of two; the others are Paley's first construction over a prime.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Order of `A`.
    pub a: usize,
    /// Order of `B`.
    pub b: usize,
    /// `A`, row-major.
    pub left: Vec<f32>,
    /// `B`, row-major, symmetric.
    pub right: Vec<f32>,
}

impl Factors {
    /// Factors of order `width`; none where no construction here gives one.
    #[must_use]
    pub fn of(width: usize) -> Option<Self> {
        if width == 0 {
            return None;
        }
        let (odd, twos) = (width >> width.trailing_zeros(), width.trailing_zeros());
        let (a, left) = if odd == 1 {
            let a = 1 << twos.div_ceil(2);
            (a, sylvester(a))
        } else {
            let a = (0..=twos)
                .map(|t| odd << t)
                .find(|&a| a <= MAX_PALEY && a.is_multiple_of(4) && is_prime(a - 1))?;
            (a, paley(a))
        };
        let b = width / a;
        let right = sylvester(b);
        Some(Self { a, b, left, right })
    }

    /// Turns one token of `a · b` values in place.
    ///
    /// # Panics
    /// Where the token has another length.
    #[allow(clippy::cast_precision_loss)]
    pub fn apply(&self, x: &mut [f32]) {
        let (a, b) = (self.a, self.b);
        assert_eq!(x.len(), a * b, "a token of another width");
        let mut turned = vec![0.0; a * b];
        for (i, row) in x.chunks_exact(b).enumerate() {
            for (r, out) in turned.chunks_exact_mut(b).enumerate() {
                let sign = self.left[i * a + r];
                out.iter_mut().zip(row).for_each(|(o, v)| *o += sign * v);
            }
        }
        let scale = 1.0 / ((a * b) as f32).sqrt();
        for (row, out) in turned.chunks_exact(b).zip(x.chunks_exact_mut(b)) {
            for (j, o) in out.iter_mut().enumerate() {
                let signs = &self.right[j * b..(j + 1) * b];
                *o = row.iter().zip(signs).map(|(v, s)| v * s).sum::<f32>() * scale;
            }
        }
    }
}

/// Sylvester's matrix of a power of two.
fn sylvester(order: usize) -> Vec<f32> {
    let entry = |i: usize, j: usize| {
        if (i & j).count_ones().is_multiple_of(2) {
            1.0
        } else {
            -1.0
        }
    };
    (0..order * order)
        .map(|n| entry(n / order, n % order))
        .collect()
}

/// Paley's first construction: `order − 1` is a prime of the form 4k + 3.
fn paley(order: usize) -> Vec<f32> {
    let q = order - 1;
    let mut square = vec![false; q];
    (1..q).for_each(|i| square[i * i % q] = true);
    let entry = |i: usize, j: usize| match (i, j) {
        (0, _) => 1.0,
        (_, 0) => -1.0,
        (i, j) if i == j || square[(i + q - j) % q] => 1.0,
        _ => -1.0,
    };
    (0..order * order)
        .map(|n| entry(n / order, n % order))
        .collect()
}

fn is_prime(n: usize) -> bool {
    n > 1
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn is_orthogonal(h: &[f32], order: usize) {
        for i in 0..order {
            for j in 0..order {
                let dot: f32 = (0..order)
                    .map(|k| h[i * order + k] * h[j * order + k])
                    .sum();
                let expected = if i == j { order as f32 } else { 0.0 };
                assert!(
                    (dot - expected).abs() < 1e-3,
                    "order {order}, rows {i} and {j}"
                );
            }
        }
    }

    #[test]
    fn factors_are_hadamard_matrices() {
        for width in [
            1,
            2,
            4,
            8,
            64,
            12,
            20,
            24,
            36 * 2,
            384,
            768,
            2560,
            6912,
            9216,
        ] {
            let f = Factors::of(width).unwrap_or_else(|| panic!("no matrix of order {width}"));
            assert_eq!(f.a * f.b, width);
            is_orthogonal(&f.left, f.a);
            is_orthogonal(&f.right, f.b);
        }
        for width in [0, 3, 6, 31, 100 * 7] {
            assert!(Factors::of(width).is_none(), "{width}");
        }
    }

    #[test]
    fn a_turn_keeps_the_norm_and_sylvester_undoes_itself() {
        for width in [1, 8, 64, 128, 12, 96, 384] {
            let x: Vec<f32> = (0..width)
                .map(|i| ((i * 37 + 11) % 19) as f32 - 9.0)
                .collect();
            let norm = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>();
            let mut y = x.clone();
            let f = Factors::of(width).unwrap();
            f.apply(&mut y);
            assert!((norm(&x) - norm(&y)).abs() <= 1e-4 * norm(&x));
            if width.is_power_of_two() {
                f.apply(&mut y);
                assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-4));
            }
        }
    }
}
