//! Counters, gauges and histograms in Prometheus text form.
//!
//! Names and buckets follow vLLM, so that its dashboards need only the prefix changed. The
//! inter-token buckets start lower, because small ternary models take less than 10 ms a token.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const TIME_TO_FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const INTER_TOKEN_LATENCY: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];

/// Everything `/metrics` shows.
#[derive(Debug)]
pub(crate) struct Metrics {
    time_to_first_token: Histogram,
    inter_token_latency: Histogram,
    prompt_tokens: AtomicU64,
    generation_tokens: AtomicU64,
    running: AtomicI64,
    waiting: AtomicI64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            time_to_first_token: Histogram::new(TIME_TO_FIRST_TOKEN),
            inter_token_latency: Histogram::new(INTER_TOKEN_LATENCY),
            prompt_tokens: AtomicU64::new(0),
            generation_tokens: AtomicU64::new(0),
            running: AtomicI64::new(0),
            waiting: AtomicI64::new(0),
        }
    }

    /// Adds the tokens of a finished generation.
    pub(crate) fn add_tokens(&self, prompt: usize, generated: usize) {
        self.prompt_tokens
            .fetch_add(prompt as u64, Ordering::Relaxed);
        self.generation_tokens
            .fetch_add(generated as u64, Ordering::Relaxed);
    }

    /// The Prometheus exposition text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        self.time_to_first_token.render(
            &mut out,
            "tritburn_time_to_first_token_seconds",
            "Seconds from the arrival of a request to its first token.",
        );
        self.inter_token_latency.render(
            &mut out,
            "tritburn_inter_token_latency_seconds",
            "Seconds between two tokens of one request.",
        );
        let prompt = self.prompt_tokens.load(Ordering::Relaxed) as i64;
        let generated = self.generation_tokens.load(Ordering::Relaxed) as i64;
        let running = self.running.load(Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            (
                "prompt_tokens_total",
                "counter",
                "Prompt tokens read.",
                prompt,
            ),
            (
                "generation_tokens_total",
                "counter",
                "Tokens generated.",
                generated,
            ),
            (
                "num_requests_running",
                "gauge",
                "Requests that generate.",
                running,
            ),
            (
                "num_requests_waiting",
                "gauge",
                "Requests that wait for their turn.",
                waiting,
            ),
        ] {
            let _ = writeln!(
                out,
                "# HELP tritburn_{name} {help}\n# TYPE tritburn_{name} {kind}\n\
                 tritburn_{name} {value}"
            );
        }
        out
    }
}

/// Counts one request as waiting or running for as long as it lives.
#[derive(Debug)]
pub(crate) struct Gauge {
    metrics: Arc<Metrics>,
    running: bool,
}

impl Gauge {
    /// A request that waits.
    pub(crate) fn waiting(metrics: Arc<Metrics>) -> Self {
        metrics.waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            metrics,
            running: false,
        }
    }

    /// The request has its turn.
    pub(crate) fn run(&mut self) {
        if !self.running {
            self.running = true;
            self.metrics.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.running.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        let gauge = if self.running {
            &self.metrics.running
        } else {
            &self.metrics.waiting
        };
        gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Times the tokens of one request.
#[derive(Debug)]
pub(crate) struct Observer {
    metrics: Arc<Metrics>,
    arrived: Instant,
    first_seen: bool,
    last: Option<Instant>,
}

impl Observer {
    /// For a request that arrived at `arrived`.
    pub(crate) fn new(metrics: Arc<Metrics>, arrived: Instant) -> Self {
        Self {
            metrics,
            arrived,
            first_seen: false,
            last: None,
        }
    }

    /// The next prompt of the same request begins: its prefill is no gap between two tokens.
    pub(crate) fn next_prompt(&mut self) {
        self.last = None;
    }

    /// A token came.
    pub(crate) fn token(&mut self) {
        let now = Instant::now();
        if !self.first_seen {
            self.first_seen = true;
            self.metrics.time_to_first_token.observe(now - self.arrived);
        } else if let Some(last) = self.last {
            self.metrics.inter_token_latency.observe(now - last);
        }
        self.last = Some(now);
    }
}

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    state: Mutex<HistogramState>,
}

#[derive(Debug)]
struct HistogramState {
    /// Observations per bucket, not cumulated; the last one is `+Inf`.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let state = HistogramState {
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        };
        Self {
            bounds,
            state: Mutex::new(state),
        }
    }

    fn observe(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.counts[bucket] += 1;
        state.sum += seconds;
    }

    fn render(&self, out: &mut String, name: &str, help: &str) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (index, count) in state.counts.iter().enumerate() {
            total += count;
            let bound = self
                .bounds
                .get(index)
                .map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {total}", state.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_inclusive() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for millis in [100, 500, 750, 4000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        histogram.render(&mut text, "x", "help");
        assert_eq!(
            text,
            "# HELP x help\n# TYPE x histogram\nx_bucket{le=\"0.5\"} 2\nx_bucket{le=\"1\"} 3\n\
             x_bucket{le=\"+Inf\"} 4\nx_sum 5.35\nx_count 4\n"
        );
    }

    #[test]
    fn gauges_fall_back_to_zero() {
        let metrics = Arc::new(Metrics::new());
        let mut one = Gauge::waiting(metrics.clone());
        let two = Gauge::waiting(metrics.clone());
        one.run();
        one.run();
        let text = metrics.render();
        assert!(
            text.contains("\ntritburn_num_requests_running 1\n"),
            "{text}"
        );
        assert!(
            text.contains("\ntritburn_num_requests_waiting 1\n"),
            "{text}"
        );
        drop((one, two));
        let text = metrics.render();
        assert!(
            text.contains("\ntritburn_num_requests_running 0\n"),
            "{text}"
        );
        assert!(
            text.contains("\ntritburn_num_requests_waiting 0\n"),
            "{text}"
        );
    }
}
