//! Weights from scores, piece by piece.

use super::CHUNK;
use crate::kv::LANES;
use crate::ops::exp;

/// What a query row has seen so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// Largest score.
    max: f32,
    /// Sums of the weights, lane by lane.
    total: [f32; LANES],
}

impl State {
    /// Nothing seen.
    pub(super) const NEW: Self = Self {
        max: f32::NEG_INFINITY,
        total: [0.0; LANES],
    };

    /// Sum of the weights.
    #[inline(always)]
    pub(super) fn total(&self) -> f32 {
        self.total.iter().sum()
    }
}

/// Makes the scores of a piece weights, `e^(scale · score − max)`, and rescales what a query row
/// has so far.
#[inline(always)]
pub(super) fn weigh(scores: &mut [f32; CHUNK], scale: f32, state: &mut State, sums: &mut [f32]) {
    let lines = scores.as_chunks_mut::<LANES>().0;
    let mut largest = [state.max; LANES];
    for line in lines.iter_mut() {
        for (s, max) in line.iter_mut().zip(&mut largest) {
            *s *= scale;
            *max = if *s > *max { *s } else { *max };
        }
    }
    let max = largest_of(largest);
    // With the largest as before nothing changes, and with no score before there is nothing.
    if max > state.max {
        if state.max > f32::NEG_INFINITY {
            let shrink = exp(state.max - max);
            state.total.iter_mut().for_each(|v| *v *= shrink);
            sums.iter_mut().for_each(|v| *v *= shrink);
        }
        state.max = max;
    }
    for line in lines {
        for (s, total) in line.iter_mut().zip(&mut state.total) {
            *s = exp(*s - max);
            *total += *s;
        }
    }
}

#[inline(always)]
fn largest_of(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = if lanes[i + half] > lanes[i] {
                lanes[i + half]
            } else {
                lanes[i]
            };
        }
        half /= 2;
    }
    lanes[0]
}
