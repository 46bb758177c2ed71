//! Schedules of learning rate, weight decay and quantisation.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays at its peak.
    Constant,
    /// Falls in a straight line to zero.
    #[default]
    Linear,
    /// Half a cosine to zero.
    Cosine,
    /// Peak until four fifths, then a straight line to zero (warm-up, stable, decay).
    Wsd,
    /// BitNet b1.58's two stages: linear to two thirds of the peak by half time, then from there
    /// to zero; weight decay is zero in the second half ("Training Tips, Code and FAQ").
    TwoStage,
}

impl Schedule {
    /// Learning rate of step `step` (from 0) of `steps`, as a share of the peak.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn factor(self, step: usize, steps: usize, warmup: usize) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / (steps - warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Self::Wsd => ((1.0 - progress) / 0.2).min(1.0),
            Self::TwoStage if progress < 0.5 => 1.0 - progress * 2.0 / 3.0,
            Self::TwoStage => 2.0 / 3.0 * (1.0 - progress) * 2.0,
        }
    }

    /// Share of the weight decay that applies at `step`.
    #[must_use]
    pub fn decay_factor(self, step: usize, steps: usize) -> f64 {
        if self == Self::TwoStage && step * 2 >= steps {
            0.0
        } else {
            1.0
        }
    }
}

/// How λ of the quantisation warm-up rises from 0 to 1: operands are `x + λ·(Q(x) − x)`
/// (Hugging Face's 1.58-bit fine-tuning, where the straight line did best).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LambdaSchedule {
    /// A straight line.
    #[default]
    Linear,
    /// Half a cosine: slow at both ends.
    Cosine,
    /// A logistic curve, steepest at half time.
    Sigmoid,
}

/// Steepness of [`LambdaSchedule::Sigmoid`].
const STEEPNESS: f64 = 10.0;

impl LambdaSchedule {
    /// λ of step `step` (from 0): 0 at the first, 1 from step `warmup` on.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub fn at(self, step: usize, warmup: usize) -> f32 {
        if step >= warmup {
            return 1.0;
        }
        let t = step as f64 / warmup as f64;
        let logistic = |t: f64| 1.0 / (1.0 + (-STEEPNESS * (t - 0.5)).exp());
        let lambda = match self {
            Self::Linear => t,
            Self::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * t).cos()),
            Self::Sigmoid => (logistic(t) - logistic(0.0)) / (logistic(1.0) - logistic(0.0)),
        };
        lambda as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_warms_up_peaks_and_falls() {
        for s in [
            Schedule::Linear,
            Schedule::Cosine,
            Schedule::Wsd,
            Schedule::TwoStage,
        ] {
            assert!((s.factor(0, 100, 10) - 0.1).abs() < 1e-12);
            assert!((s.factor(10, 100, 10) - 1.0).abs() < 1e-12);
            let mut last = 1.0;
            for step in 10..100 {
                let now = s.factor(step, 100, 10);
                assert!(now <= last + 1e-12, "{s:?} rises at {step}");
                last = now;
            }
            assert!(last < 0.06, "{s:?} ends at {last}");
        }
    }

    #[test]
    fn two_stage_drops_decay_at_half_time() {
        assert_eq!(Schedule::TwoStage.decay_factor(49, 100), 1.0);
        assert_eq!(Schedule::TwoStage.decay_factor(50, 100), 0.0);
        assert_eq!(Schedule::Linear.decay_factor(99, 100), 1.0);
    }

    #[test]
    fn lambda_rises_from_zero_to_one() {
        for s in [
            LambdaSchedule::Linear,
            LambdaSchedule::Cosine,
            LambdaSchedule::Sigmoid,
        ] {
            assert_eq!((s.at(0, 10), s.at(10, 10), s.at(0, 0)), (0.0, 1.0, 1.0));
            assert!((s.at(5, 10) - 0.5).abs() < 1e-6);
            assert!((0..10).all(|i| s.at(i, 10) < s.at(i + 1, 10)), "{s:?}");
        }
    }
}
