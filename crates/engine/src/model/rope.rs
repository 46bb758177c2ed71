//! Rotary position embedding in the half-split order of Hugging Face: value `i` of a head turns
//! with value `i + d / 2`.

use tritburn_kernels::ops;

/// Angles of some positions.
#[derive(Debug)]
pub(crate) struct Rope {
    inv_freq: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// With the angle per position of each of the `head_dim / 2` pairs.
    pub(crate) fn new(inv_freq: Vec<f32>) -> Self {
        Self {
            inv_freq,
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    /// Whether it turns by these angles.
    pub(crate) fn turns_by(&self, inv_freq: &[f32]) -> bool {
        self.inv_freq == inv_freq
    }

    /// Computes the angles of `tokens` positions from `first` on.
    pub(crate) fn set_positions(&mut self, first: usize, tokens: usize) {
        self.cos.clear();
        self.sin.clear();
        for position in first..first + tokens {
            for inv_freq in &self.inv_freq {
                let (sin, cos) = (position as f32 * inv_freq).sin_cos();
                self.cos.push(cos);
                self.sin.push(sin);
            }
        }
    }

    /// Turns a head of a token in place; tokens are counted from the first of the positions.
    pub(crate) fn apply(&self, token: usize, head: &mut [f32]) {
        let half = self.inv_freq.len();
        let angles = token * half..(token + 1) * half;
        ops::rotate(head, &self.cos[angles.clone()], &self.sin[angles]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_zero_changes_nothing_and_turns_keep_the_length() {
        let mut rope = Rope::new(vec![1.0, 0.01]);
        let x = [1.0, 2.0, 3.0, 4.0];
        let mut y = [x, x].concat();
        rope.set_positions(0, 2);
        rope.apply(0, &mut y[..4]);
        rope.apply(1, &mut y[4..]);
        assert_eq!(y[..4], x);
        let (sin, cos) = 1f32.sin_cos();
        assert!((y[4] - (cos - 3.0 * sin)).abs() < 1e-6);
        assert!((y[6] - (3.0 * cos + sin)).abs() < 1e-6);
        let square: f32 = y[4..].iter().map(|v| v * v).sum();
        assert!((square - 30.0).abs() < 1e-4);
    }
}
