//! Runs candidates in turn.

use std::time::{Duration, Instant};

/// How long all rounds of one comparison take, about.
const TIME: Duration = Duration::from_millis(1500);
/// Fewest rounds.
const ROUNDS: usize = 15;

/// Something to be timed, with its name.
pub(crate) type Candidate<'a> = (String, Box<dyn FnMut() + 'a>);

/// Medians over rounds, in each of which every candidate runs once: microseconds, and the ratio of
/// the first candidate's time in the same round to this one's.
pub(crate) fn compare(title: &str, candidates: &mut [Candidate<'_>]) -> Vec<f64> {
    let mut times = vec![Vec::new(); candidates.len()];
    let start = Instant::now();
    while times[0].len() < ROUNDS || start.elapsed() < TIME {
        for ((_, run), times) in candidates.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    println!("{title}, {} rounds", times[0].len());
    let ratio = |times_of: &[f64]| {
        let pairs = times[0].iter().zip(times_of);
        median(pairs.map(|(first, mine)| first / mine).collect())
    };
    let ratios: Vec<f64> = times.iter().map(|t| ratio(t)).collect();
    for (((name, _), times), ratio) in candidates.iter().zip(&times).zip(&ratios) {
        println!("  {name:24} {:9.1} µs  {ratio:5.2}×", median(times.clone()));
    }
    ratios
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}
