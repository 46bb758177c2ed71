//! How images become noise, step by step.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tritburn_quant::config::NoiseKind;

/// β of the first and the last of 1,000 steps in a straight line (Ho et al. 2020, §4).
const BETAS: (f64, f64) = (1e-4, 0.02);
/// Offset of the cosine, and the largest β (Nichol & Dhariwal 2021, §3.2).
const OFFSET: f64 = 0.008;
const MAX_BETA: f64 = 0.999;

/// ᾱ of every step: what is left of the image's variance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NoiseSchedule(Vec<f64>);

impl NoiseSchedule {
    /// `steps` steps; with other than 1,000 a straight line is as steep as makes the end the same.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn new(kind: NoiseKind, steps: usize) -> Self {
        let share = |t: usize| t as f64 / (steps.max(2) - 1) as f64;
        let cosine = |t: usize| {
            let angle = (t as f64 / steps as f64 + OFFSET) / (1.0 + OFFSET);
            (angle * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        let beta = |t: usize| match kind {
            NoiseKind::Linear => {
                let steeper = 1000.0 / steps as f64;
                steeper * (BETAS.0 + (BETAS.1 - BETAS.0) * share(t))
            }
            NoiseKind::Cosine => 1.0 - cosine(t + 1) / cosine(t),
        };
        let left = (0..steps).scan(1.0, |left, t| {
            *left *= 1.0 - beta(t).min(MAX_BETA);
            Some(*left)
        });
        Self(left.collect())
    }

    /// ᾱ after step `t`; 1 before the first.
    pub(crate) fn left(&self, t: Option<usize>) -> f64 {
        t.and_then(|t| self.0.get(t)).copied().unwrap_or(1.0)
    }

    /// Steps.
    pub(crate) fn steps(&self) -> usize {
        self.0.len()
    }
}

/// Seeded dice, one independent stream for each `stream`: what is drawn depends on nothing that
/// was drawn before, so a resumed run draws the same.
#[derive(Debug)]
pub(crate) struct Draws(ChaCha8Rng);

impl Draws {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// `count` values of a normal distribution.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f32> {
        let rng = &mut self.0;
        (0..count).map(|_| StandardNormal.sample(rng)).collect()
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        use rand::Rng;
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True in a share of all cases.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        const CELLS: usize = 1 << 30;
        #[allow(clippy::cast_precision_loss)]
        let place = self.below(CELLS) as f64 / CELLS as f64;
        place < share
    }
}

/// `√ᾱ · image + √(1 − ᾱ) · noise` (Ho et al. 2020, Eq. 4).
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn noised(image: &[f32], noise: &[f32], left: f64) -> Vec<f32> {
    let (keep, add) = (left.sqrt() as f32, (1.0 - left).sqrt() as f32);
    let both = image.iter().zip(noise);
    both.map(|(x, e)| keep * x + add * e).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_fade_to_noise() {
        for kind in [NoiseKind::Linear, NoiseKind::Cosine] {
            for steps in [50, 1000] {
                let schedule = NoiseSchedule::new(kind, steps);
                assert_eq!(schedule.steps(), steps);
                let all: Vec<f64> = (0..steps).map(|t| schedule.left(Some(t))).collect();
                assert!(
                    all.windows(2).all(|w| w[1] < w[0] && w[1] > 0.0),
                    "{kind:?}"
                );
                assert!(all[0] > 0.99 && all[steps - 1] < 1e-3, "{kind:?} {all:?}");
                assert_eq!(schedule.left(None), 1.0);
            }
        }
        // Ho et al.'s own numbers: ᾱ ends at 4.0e-5.
        let linear = NoiseSchedule::new(NoiseKind::Linear, 1000);
        assert!((linear.left(Some(999)) - 4.036e-5).abs() < 1e-7);
    }

    #[test]
    fn draws_are_normal_and_streams_apart() {
        let draw = |stream| Draws::new(3, stream).normal(20_000);
        let values = draw(1);
        let mean = values.iter().sum::<f32>() / 20_000.0;
        let square = values.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.03);
        assert_eq!(values, draw(1));
        assert_ne!(values, draw(2));
        let mut dice = Draws::new(3, 9);
        let hits = (0..10_000).filter(|_| dice.chance(0.1)).count();
        assert!((900..1100).contains(&hits), "{hits}");
    }
}
