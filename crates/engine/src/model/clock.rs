//! Time by kind of operation, for the profile.

use std::time::{Duration, Instant};

/// Kinds of operations, in the order of a token's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Embedding,
    Qkv,
    Attention,
    /// With what is added to the residual stream, as [`Self::Down`].
    OutProjection,
    /// With the norm and the rounding for [`Self::Down`], where both run in one region.
    GateUp,
    Activation,
    Down,
    FinalNorm,
    Head,
}

impl Op {
    pub(crate) const ALL: [Self; 9] = [
        Self::Embedding,
        Self::Qkv,
        Self::Attention,
        Self::OutProjection,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::FinalNorm,
        Self::Head,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Qkv => "norm + q, k, v",
            Self::Attention => "rope, cache, attention",
            Self::OutProjection => "norm + o",
            Self::GateUp => "norm + gate, up, act, norm",
            Self::Activation => "activation",
            Self::Down => "down",
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
    /// Bytes of weights left out up to the last lap.
    before: u64,
    left_out: [u64; Op::ALL.len()],
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            spent: [Duration::ZERO; Op::ALL.len()],
            before: 0,
            left_out: [0; Op::ALL.len()],
        }
    }
}

impl Clock {
    /// What follows is not of the lap before; `left_out` bytes of weights were left out so far.
    pub(crate) fn start(&mut self, left_out: u64) {
        self.last = Instant::now();
        self.before = left_out;
    }

    /// The time since the last lap was that of `op`, and so were the bytes left out since then.
    pub(crate) fn lap(&mut self, op: Op, left_out: u64) {
        let now = Instant::now();
        self.spent[op as usize] += now - self.last;
        self.left_out[op as usize] += left_out - self.before;
        (self.last, self.before) = (now, left_out);
    }

    /// Bytes of weights that `op` did not read.
    pub(crate) fn left_out(&self, op: Op) -> u64 {
        self.left_out[op as usize]
    }

    pub(crate) fn seconds(&self, op: Op) -> f64 {
        self.spent[op as usize].as_secs_f64()
    }
}
