//! The gate of Gemma's feed-forward block.

use tritburn_kernels::ops;

/// `2 · √(2/π)`.
const SLOPE: f32 = 1.595_769_2;
const CUBIC: f32 = 0.044_715;
/// Values at a time, so that the rewritten operands stay in registers and the first-level cache.
const CHUNK: usize = 64;

/// `gate = gelu(gate) · up` with GELU in its tanh form (arXiv 1606.08415).
///
/// `(1 + tanh(z)) / 2 = σ(2z)`, so with `s = SLOPE · (1 + CUBIC · g²)` GELU is `g · σ(s · g)`, which
/// is SiLU of `s · g` divided by `s`: the exponential is the vectorised one of [`ops::silu_mul`].
pub(crate) fn gelu_tanh_mul(gate: &mut [f32], up: &[f32]) {
    let mut scaled = [0f32; CHUNK];
    for (gate, up) in gate.chunks_mut(CHUNK).zip(up.chunks(CHUNK)) {
        for ((g, u), scaled) in gate.iter_mut().zip(up).zip(&mut scaled) {
            // Beyond ±1000 the gate is open or closed to the last bit.
            let s = SLOPE * (1.0 + CUBIC * (*g * *g).min(1e6));
            *g *= s;
            *scaled = u / s;
        }
        ops::silu_mul(gate, &scaled[..up.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_close_to_the_definition() {
        let mut gate: Vec<f32> = (-600..600).map(|i| i as f32 / 50.0).collect();
        let want: Vec<f64> = gate
            .iter()
            .map(|&g| {
                let g = f64::from(g);
                let z = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044_715 * g.powi(3));
                0.5 * g * (1.0 + z.tanh()) * 0.5
            })
            .collect();
        gelu_tanh_mul(&mut gate, &vec![0.5; want.len()]);
        for (got, want) in gate.iter().zip(want) {
            assert!(
                (f64::from(*got) - want).abs() < 1e-6 * want.abs().max(1.0),
                "{got} {want}"
            );
        }
        let mut far = [1e30, -1e30, 0.0];
        gelu_tanh_mul(&mut far, &[1.0; 3]);
        assert_eq!(far[1..], [0.0, 0.0]);
        assert!((far[0] / 1e30 - 1.0).abs() < 1e-6);
    }
}
