//! Where the time of a token goes.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{BenchOptions, Phase, room_for, start_after};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::{Clock, Op};
use crate::session::PREFILL_CHUNK;

/// Share of one kind of operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpShare {
    /// Name of the operation.
    pub op: &'static str,
    /// Seconds a token, mean of the tokens.
    pub seconds: f64,
    /// Share of the whole, 0…1; the shares add up to 1.
    pub share: f64,
    /// Share of the operation's weights that were not read, since inputs were zero or gates closed.
    pub left_out: f64,
}

/// Reads the prompt of `options`, or writes its tokens after those of the context, once, and tells
/// where the time goes, in the order of a token's way through the model. Readings of the clock add
/// less than a microsecond a layer.
///
/// # Errors
/// [`crate::EngineError::EmptyPrompt`] without tokens, [`crate::EngineError::ContextTooLong`] where
/// the model has no room for them.
pub fn profile(engine: &Engine, phase: Phase, options: &BenchOptions) -> Result<Vec<OpShare>> {
    let (depth, tokens) = options.tokens(phase);
    let (mut session, ids) = room_for(engine, depth.saturating_add(tokens))?;
    let measured = &ids[..tokens];
    // Once unmeasured, so that the buffers are there.
    session.prefill(measured)?;
    start_after(&mut session, &ids[..depth])?;
    session.set_clock(Some(Clock::default()));
    let start = Instant::now();
    let passes = match phase {
        Phase::Prefill => {
            session.prefill(measured)?;
            tokens.div_ceil(PREFILL_CHUNK)
        }
        Phase::Decode => {
            for &token in measured {
                session.decode(token)?;
            }
            tokens
        }
    };
    let total = start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    let clock = session.set_clock(None).unwrap_or_default();
    let row = |op: &'static str, seconds: f64, left_out: f64| OpShare {
        op,
        seconds: seconds / tokens as f64,
        share: seconds / total,
        left_out,
    };
    let of_op = |&op: &Op| {
        let all = passes * engine.core.model.bytes_of(op);
        let left_out = clock.left_out(op) as f64 / all.max(1) as f64;
        row(op.name(), clock.seconds(op), left_out)
    };
    let mut rows: Vec<OpShare> = Op::ALL.iter().map(of_op).collect();
    let known: f64 = rows.iter().map(|r| r.seconds).sum();
    rows.push(row("other", (total - known * tokens as f64).max(0.0), 0.0));
    Ok(rows)
}
