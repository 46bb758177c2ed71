//! Checks that recipes of language models and of diffusion transformers share.

use super::TrainSection;

/// What drives the steps of a stage or a run.
pub(super) struct Pace {
    pub(super) steps: usize,
    pub(super) batch_size: usize,
    pub(super) grad_accum: usize,
    pub(super) lr: f64,
    pub(super) warmup: usize,
    pub(super) weight_decay: f64,
    pub(super) betas: [f64; 2],
    pub(super) eps: f64,
    pub(super) ema: f64,
    pub(super) clip: f64,
}

impl Pace {
    /// Says of every field whether it is in its range.
    pub(super) fn check(&self, say: &mut impl FnMut(bool, &str, &str)) {
        for (key, value) in [
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("grad_accum", self.grad_accum),
        ] {
            say(value > 0, key, "must be at least 1");
        }
        say(
            self.lr > 0.0 && self.lr.is_finite(),
            "lr",
            "must be positive",
        );
        say(
            self.warmup < self.steps.max(1),
            "warmup",
            "must be shorter than steps",
        );
        say(
            self.weight_decay >= 0.0,
            "weight_decay",
            "must not be negative",
        );
        say(
            self.betas.iter().all(|b| (0.0..1.0).contains(b)),
            "betas",
            "must lie in [0, 1)",
        );
        say(self.eps > 0.0, "eps", "must be positive");
        say((0.0..1.0).contains(&self.ema), "ema", "must lie in [0, 1)");
        say(self.clip >= 0.0, "clip", "must not be negative");
    }
}

/// Says of every field of `[train]` whether it is in its range.
pub(super) fn check_train(train: &TrainSection, say: &mut impl FnMut(bool, &str, &str)) {
    say(train.log_every > 0, "train.log_every", "must be at least 1");
    say(train.keep > 0, "train.keep", "must be at least 1");
    say(
        !train.load_best || train.eval_every > 0,
        "train.load_best",
        "needs evaluations inside the loop: set train.eval_every",
    );
}
