//! Speed of prefill and decode beside what the machine could do at most.

mod limits;
mod profile;
mod shapes;

pub use limits::{Limits, MemorySpeed};
pub use profile::{OpShare, Profile, Regions, profile};
pub use shapes::{SHAPES, shape};

use std::time::Instant;

use serde::Serialize;
use tritburn_kernels::memory;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::model::Op;
use crate::session::{PREFILL_CHUNK, Session};

/// Which part of the work was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading a prompt, many tokens at once.
    Prefill,
    /// Writing, one token at a time.
    Decode,
}

impl Phase {
    /// Name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchRow {
    /// Name of the model or shape.
    pub shape: String,
    /// How the projections are stored.
    pub format: &'static str,
    /// What a scale of theirs covers: `tensor`, `row` or `group128`; none in full precision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<&'static str>,
    /// How output head and embedding are stored.
    pub head: &'static str,
    /// How keys and values are stored.
    pub kv_cache_dtype: &'static str,
    /// Name of the kernel.
    pub isa: &'static str,
    /// Threads that computed.
    pub threads: usize,
    /// Numbers of the NUMA nodes that they were bound to; none where nothing is bound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
    /// What was measured.
    pub phase: Phase,
    /// Tokens of one run.
    pub tokens: usize,
    /// Tokens in the context before them.
    pub depth: usize,
    /// Tokens a second, median of the runs.
    pub tok_s: f64,
    /// Weights read, in 10⁹ bytes a second, and in decoding keys and values. What was left out does not count.
    pub gb_s: f64,
    /// Share of the bytes of weights that were not read, since inputs were zero or gates closed.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: f64,
    /// Share of the speed that the machine's memory and the kernel's arithmetic allow, as they were at the start.
    pub roofline_share: f64,
    /// In decoding, the same by what memory gave in turn with the runs, median of theirs; `None` of prompts. On a
    /// machine that others use, too, what it gives changes by a fifth within seconds.
    pub roofline_share_in_turn: Option<f64>,
    /// What memory gives these threads, measured at the start, in 10⁹ bytes a second.
    pub memory_gb_s: f64,
    /// In decoding, what plain reads of the model's weights gave in turn with the runs, median, in 10⁹ bytes a
    /// second; `None` of prompts.
    pub weights_gb_s: Option<f64>,
    /// What the kernel computes from caches on them, measured at the start, in 10⁹ products a second.
    pub kernel_gop_s: f64,
    /// Memory of the process after the runs; `None` where the system does not tell.
    pub rss_bytes: Option<u64>,
    /// Most memory that the process had so far, what was measured and loaded before included.
    pub peak_bytes: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of the prompt.
    pub prefill_tokens: usize,
    /// Tokens to write.
    pub decode_tokens: usize,
    /// Tokens in the context before those that are written.
    pub depth: usize,
    /// Runs, of which the median counts.
    pub runs: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            prefill_tokens: 128,
            decode_tokens: 32,
            depth: 16,
            runs: 3,
        }
    }
}

impl BenchOptions {
    /// Tokens in the context before a phase, and tokens of it.
    #[must_use]
    pub const fn tokens(&self, phase: Phase) -> (usize, usize) {
        match phase {
            Phase::Prefill => (0, self.prefill_tokens),
            Phase::Decode => (self.depth, self.decode_tokens),
        }
    }
}

/// Measures prefill and decode. `name` stands in the rows; `limits` must have been
/// [measured](Limits::measure) with the same engine options.
///
/// # Errors
/// [`EngineError::Bench`] where there is nothing to measure; [`EngineError::ContextTooLong`] where
/// the model has no room for the tokens.
pub fn run(
    engine: &Engine,
    name: &str,
    options: &BenchOptions,
    limits: &Limits,
) -> Result<Vec<BenchRow>> {
    if options.prefill_tokens == 0 || options.decode_tokens == 0 || options.runs == 0 {
        return Err(EngineError::Bench(
            "prefill tokens, decode tokens and runs must be at least 1".into(),
        ));
    }
    let model = &engine.core.model;
    let most = options
        .prefill_tokens
        .max(options.depth.saturating_add(options.decode_tokens));
    let (mut session, tokens) = room_for(engine, most)?;

    let prefill = seconds_of(options.runs, || {
        session.truncate(0);
        let start = Instant::now();
        session.prefill(&tokens[..options.prefill_tokens])?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let (context, written) = tokens.split_at(options.depth);
    let mut left_out = 0;
    let weights = model.regions_per_token();
    let mut weights_speeds = vec![memory::read_speed_of(&engine.core.exec, &weights)];
    let decode = seconds_of(options.runs, || {
        start_after(&mut session, context)?;
        let before = session.left_out();
        let start = Instant::now();
        for &token in &written[..options.decode_tokens] {
            session.decode(token)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        // The same in every run.
        left_out = session.left_out() - before;
        weights_speeds.push(memory::read_speed_of(&engine.core.exec, &weights));
        Ok(seconds)
    })?;

    let row = |phase, weights: usize, cache: usize, seconds: &[f64]| {
        let (depth, tokens) = options.tokens(phase);
        let left_out = if phase == Phase::Decode { left_out } else { 0 };
        let bytes = (weights + cache) as f64 - left_out as f64;
        let products = model.products_per_token() as f64 * tokens as f64;
        let floor = |bytes_per_second: f64| {
            (bytes / bytes_per_second).max(products / limits.products_per_second)
        };
        // Memory's speed in a run is taken as the mean of what it was before and after.
        let around = weights_speeds.windows(2).map(|s| s[0].midpoint(s[1]));
        let shares = around.zip(seconds).map(|(speed, s)| floor(speed) / s);
        let in_turn = (phase == Phase::Decode).then(|| median(shares.collect()));
        let in_turn_gb_s = in_turn.map(|_| median(weights_speeds.clone()) / 1e9);
        let seconds = median(seconds.to_vec());
        let info = engine.info();
        BenchRow {
            shape: name.to_owned(),
            format: info.format,
            scales: model.scales(),
            head: info.head.name(),
            kv_cache_dtype: info.kv.name(),
            isa: info.kernel,
            threads: info.threads,
            nodes: info.nodes,
            phase,
            tokens,
            depth,
            tok_s: tokens as f64 / seconds,
            gb_s: bytes / seconds / 1e9,
            left_out: left_out as f64 / weights as f64,
            roofline_share: floor(limits.bytes_per_second) / seconds,
            roofline_share_in_turn: in_turn,
            memory_gb_s: limits.bytes_per_second / 1e9,
            weights_gb_s: in_turn_gb_s,
            kernel_gop_s: limits.products_per_second / 1e9,
            rss_bytes: rss_bytes(),
            peak_bytes: peak_bytes(),
        }
    };
    let bytes = model.bytes_per_token();
    let chunks = options.prefill_tokens.div_ceil(PREFILL_CHUNK);
    // Only the last chunk has logits.
    let prompt = bytes * chunks - model.bytes_of(Op::Head) * (chunks - 1);
    let text = bytes * options.decode_tokens;
    let seen = options.depth..options.depth + options.decode_tokens;
    let cache = seen.map(|seen| model.cache_bytes(engine.info().kv, seen));
    Ok(vec![
        row(Phase::Prefill, prompt, 0, &prefill),
        row(Phase::Decode, text, cache.sum(), &decode),
    ])
}

/// A session that `n` tokens fit in, and tokens without a pattern, the same at every call.
fn room_for(engine: &Engine, n: usize) -> Result<(Session, Vec<u32>)> {
    let mut session = engine.new_session(n);
    if n > session.max_len() {
        return Err(EngineError::ContextTooLong {
            tokens: n,
            max: session.max_len(),
        });
    }
    session.reserve(n);
    let vocab = engine.config().vocab_size as u64;
    let id = |i| (i * 2_654_435_761 % vocab) as u32;
    Ok((session, (0..n as u64).map(id).collect()))
}

/// Leaves nothing but `context` in a session.
fn start_after(session: &mut Session, context: &[u32]) -> Result<()> {
    session.truncate(0);
    if !context.is_empty() {
        session.prefill(context)?;
    }
    Ok(())
}

/// What each of the runs took.
fn seconds_of(runs: usize, mut seconds: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    (0..runs).map(|_| seconds()).collect()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Resident memory of this process.
#[must_use]
pub fn rss_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// Most resident memory that this process had.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

fn status_bytes(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tritburn_kernels::kv::KvFormat;

    use super::*;
    use crate::engine::EngineOptions;

    #[test]
    fn a_token_reads_what_its_layers_look_back_to() {
        let mut config = shape("smollm2-135m").unwrap();
        (config.num_hidden_layers, config.vocab_size) = (2, 300);
        let engine = Engine::random(&config, 1, EngineOptions::default()).unwrap();
        let model = &engine.core.model;
        // Keys and values of 3 heads of 64 in each of 2 layers.
        let values = 2 * 3 * 64 * 2;
        let rows = 2 * 3 * 2;
        for (format, position) in [
            (KvFormat::F32, 4 * values),
            (KvFormat::F16, 2 * values),
            (KvFormat::Int8, values + 4 * rows),
            (KvFormat::Int4, values / 2 + 4 * rows),
            (KvFormat::Int3, values * 3 / 8 + 4 * rows),
        ] {
            assert_eq!(model.cache_bytes(format, 0), position);
            assert_eq!(model.cache_bytes(format, 9), 10 * position);
        }
    }

    #[test]
    fn a_session_starts_after_its_context_alone() {
        let mut config = shape("smollm2-135m").unwrap();
        (config.num_hidden_layers, config.vocab_size) = (1, 300);
        let engine = Engine::random(&config, 1, EngineOptions::default()).unwrap();
        let (mut session, tokens) = room_for(&engine, 9).unwrap();
        for context in [&tokens[..5], &tokens[..0], &tokens[..9]] {
            start_after(&mut session, context).unwrap();
            assert_eq!(session.len(), context.len());
        }
        assert!(room_for(&engine, usize::MAX).is_err());
    }
}
