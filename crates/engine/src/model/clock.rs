//! Time by kind of operation, for the profile.

use std::time::{Duration, Instant};

/// Kinds of operations, in the order of a token's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Embedding,
    Qkv,
    RopeAndCache,
    Attention,
    OutProjection,
    GateUp,
    Activation,
    Down,
    Residual,
    FinalNorm,
    Head,
}

impl Op {
    pub(crate) const ALL: [Self; 11] = [
        Self::Embedding,
        Self::Qkv,
        Self::RopeAndCache,
        Self::Attention,
        Self::OutProjection,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::Residual,
        Self::FinalNorm,
        Self::Head,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Qkv => "norm + q, k, v",
            Self::RopeAndCache => "rope + cache",
            Self::Attention => "attention",
            Self::OutProjection => "norm + o",
            Self::GateUp => "norm + gate, up",
            Self::Activation => "activation",
            Self::Down => "norm + down",
            Self::Residual => "residual",
            Self::FinalNorm => "final norm",
            Self::Head => "head",
        }
    }
}

/// Adds up the time between laps.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    last: Instant,
    spent: [Duration; Op::ALL.len()],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            spent: [Duration::ZERO; Op::ALL.len()],
        }
    }
}

impl Clock {
    /// What follows is not of the lap before.
    pub(crate) fn start(&mut self) {
        self.last = Instant::now();
    }

    /// The time since the last lap was that of `op`.
    pub(crate) fn lap(&mut self, op: Op) {
        let now = Instant::now();
        self.spent[op as usize] += now - self.last;
        self.last = now;
    }

    pub(crate) fn seconds(&self, op: Op) -> f64 {
        self.spent[op as usize].as_secs_f64()
    }
}
