//! The choice of the largest magnitudes (Q-Sparse, arXiv 2407.10969, §2.1; BitNet a4.8, Eq. 3).

/// Calls `dropped` with the place of every value whose magnitude is below the `kept`-th largest.
/// Ties with it survive, NaN never does.
pub fn keep_largest(
    x: &[f32],
    kept: usize,
    magnitudes: &mut Vec<f32>,
    mut dropped: impl FnMut(usize),
) {
    if kept >= x.len() {
        return;
    }
    magnitudes.clear();
    let size = |v: &f32| if v.is_nan() { -1.0 } else { v.abs() };
    magnitudes.extend(x.iter().map(size));
    let (_, threshold, _) = magnitudes.select_nth_unstable_by(kept - 1, |a, b| b.total_cmp(a));
    let threshold = *threshold;
    for (i, v) in x.iter().enumerate() {
        if v.is_nan() || v.abs() < threshold {
            dropped(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(x: &[f32], kept: usize) -> Vec<usize> {
        let mut alive: Vec<usize> = (0..x.len()).collect();
        keep_largest(x, kept, &mut Vec::new(), |i| alive.retain(|&a| a != i));
        alive
    }

    #[test]
    fn ties_survive_together() {
        assert_eq!(survivors(&[1.0, -3.0, 2.0, 3.0], 2), [1, 3]);
        assert_eq!(survivors(&[1.0, -3.0, 2.0, 3.0], 1), [1, 3]);
        assert_eq!(survivors(&[0.0; 3], 1), [0, 1, 2]);
        assert_eq!(survivors(&[f32::NAN, 1.0], 1), [1]);
        assert_eq!(survivors(&[1.0, 2.0], 2), [0, 1]);
    }
}
