//! Where the time of a token goes.

use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Parallel regions: what threads wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regions {
    /// Regions for each token, mean of the tokens; none on one thread.
    pub per_token: f64,
    /// The same for one layer, what the head needs included.
    pub per_layer: f64,
    /// Seconds of a region in which all threads meet and nothing else is done.
    pub empty_seconds: f64,
    /// Share of the whole that so many of these take, 0…1.
    pub share: f64,
}

/// Where the time of a phase goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Kinds of operations, in the order of a token's way through the model.
    pub ops: Vec<OpShare>,
    /// What their barriers cost, which is part of them.
    pub regions: Regions,
}

/// How long regions are repeated of which the mean counts, and those in front of them that do not.
const EMPTY: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(2)];

/// Seconds of a region whose tasks wait for each other, one on each thread.
fn empty_region(engine: &Engine) -> f64 {
    let pool = &engine.core.exec.pool;
    let meet = || {
        let here = AtomicUsize::new(0);
        pool.run(pool.threads(), &|_| {
            here.fetch_add(1, Ordering::AcqRel);
            let mut looks = 0;
            while here.load(Ordering::Acquire) < pool.threads() {
                looks += 1;
                // The other thread may need this very core.
                if looks % 1000 == 0 {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        });
    };
    let pass = |time: Duration| {
        let (start, mut n) = (Instant::now(), 0u32);
        while start.elapsed() < time {
            meet();
            n += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(n.max(1))
    };
    pass(EMPTY[1]);
    pass(EMPTY[0])
}

/// Reads the prompt of `options`, or writes its tokens after those of the context, once, and tells
/// where the time goes. Readings of the clock add less than a microsecond a layer.
///
/// # Errors
/// [`crate::EngineError::EmptyPrompt`] without tokens, [`crate::EngineError::ContextTooLong`] where
/// the model has no room for them.
pub fn profile(engine: &Engine, phase: Phase, options: &BenchOptions) -> Result<Profile> {
    let (depth, tokens) = options.tokens(phase);
    let (mut session, ids) = room_for(engine, depth.saturating_add(tokens))?;
    let measured = &ids[..tokens];
    // Once unmeasured, so that the buffers are there.
    session.prefill(measured)?;
    start_after(&mut session, &ids[..depth])?;
    session.set_clock(Some(Clock::default()));
    let pool = &engine.core.exec.pool;
    let before = pool.regions();
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
    let per_token = (pool.regions() - before) as f64 / tokens as f64;
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
    let empty_seconds = empty_region(engine);
    let regions = Regions {
        per_token,
        per_layer: per_token / engine.config().num_hidden_layers.max(1) as f64,
        empty_seconds,
        share: per_token * tokens as f64 * empty_seconds / total,
    };
    Ok(Profile { ops: rows, regions })
}
