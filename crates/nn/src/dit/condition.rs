//! What an image is conditioned on: how noisy it is, and what it shows.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use tritburn_quant::config::DitConfig;

/// Longest period of the sines and cosines of a timestep (Peebles & Xie 2023, after Ho et al.
/// 2020).
const LONGEST: f64 = 10_000.0;

/// Timesteps and classes of a batch, as the model takes them.
#[derive(Debug, Clone)]
pub struct Condition<B: Backend> {
    /// Cosines and sines of the timestep, `[batch, frequencies]`.
    pub(super) time: Tensor<B, 2>,
    /// 1 in the column of the class, `[batch, classes + 1]`.
    pub(super) class: Tensor<B, 2>,
}

impl<B: Backend> Condition<B> {
    /// Of images at `steps` (0 is the least noise) that show `classes`; `num_classes` or more
    /// stands for no class. Made on the host, so that it is the same on every device.
    ///
    /// # Panics
    /// Where there are not as many steps as classes.
    #[must_use]
    pub fn new(config: &DitConfig, steps: &[usize], classes: &[usize], device: &B::Device) -> Self {
        assert_eq!(steps.len(), classes.len(), "one class for each timestep");
        let (batch, columns) = (steps.len(), config.num_classes + 1);
        let mut one_hot = vec![0.0f32; batch * columns];
        for (row, &class) in classes.iter().enumerate() {
            one_hot[row * columns + class.min(config.num_classes)] = 1.0;
        }
        let waves = steps.iter().flat_map(|&t| waves(t, config.frequencies));
        let time = TensorData::new(waves.collect::<Vec<f32>>(), [batch, config.frequencies]);
        Self {
            time: Tensor::from_data(time, device),
            class: Tensor::from_data(TensorData::new(one_hot, [batch, columns]), device),
        }
    }
}

/// Cosines, then sines, of `step` at frequencies from 1 down to 1 / 10,000.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn waves(step: usize, count: usize) -> Vec<f32> {
    let half = count / 2;
    let angle = |i: usize| step as f64 * (-LONGEST.ln() * i as f64 / half as f64).exp();
    let wave = |f: fn(f64) -> f64| (0..half).map(move |i| f(angle(i)) as f32);
    wave(f64::cos).chain(wave(f64::sin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_have_waves_of_their_own() {
        assert_eq!(waves(0, 4), [1.0, 1.0, 0.0, 0.0]);
        let w = waves(500, 4);
        assert!((w[0] - 500f32.cos()).abs() < 1e-4 && (w[1] - 5f32.cos()).abs() < 1e-6);
        assert!((w[3] - 5f32.sin()).abs() < 1e-6, "{w:?}");
    }
}
