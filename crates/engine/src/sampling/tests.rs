#![allow(clippy::unwrap_used)]
use super::*;

fn frequencies(params: SamplingParams, logits: &[f32]) -> Vec<f32> {
    let mut sampler = Sampler::new(params, &[]).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..20_000 {
        counts[sampler.sample(logits).unwrap() as usize] += 1.0 / 20_000.0;
    }
    counts
}

fn hot() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        ..SamplingParams::default()
    }
}

/// Logits of probabilities 0.5, 0.3, 0.15, 0.05.
fn logits() -> Vec<f32> {
    [0.15f32, 0.5, 0.05, 0.3]
        .iter()
        .map(|p| p.ln() + 3.0)
        .collect()
}

fn close(got: &[f32], want: [f32; 4]) {
    assert!(
        got.iter().zip(want).all(|(g, w)| (g - w).abs() < 0.015),
        "{got:?} {want:?}"
    );
}

#[test]
fn draws_follow_the_distribution_and_its_filters() {
    close(&frequencies(hot(), &logits()), [0.15, 0.5, 0.05, 0.3]);
    let p = SamplingParams {
        top_k: Some(2),
        ..hot()
    };
    close(&frequencies(p, &logits()), [0.0, 0.625, 0.0, 0.375]);
    let p = SamplingParams {
        top_p: 0.79,
        ..hot()
    };
    close(&frequencies(p, &logits()), [0.0, 0.625, 0.0, 0.375]);
    let p = SamplingParams {
        min_p: 0.25,
        ..hot()
    };
    let want = [0.15 / 0.95, 0.5 / 0.95, 0.0, 0.3 / 0.95];
    close(&frequencies(p, &logits()), want);
    let p = SamplingParams {
        temperature: 0.5,
        ..SamplingParams::default()
    };
    let sum = 0.0225 + 0.25 + 0.0025 + 0.09;
    let want = [0.0225 / sum, 0.25 / sum, 0.0025 / sum, 0.09 / sum];
    close(&frequencies(p, &logits()), want);
    let p = SamplingParams {
        top_p: 1e-6,
        ..hot()
    };
    assert_eq!(frequencies(p, &logits())[1].round(), 1.0);
}

#[test]
fn top_p_looks_past_its_first_step() {
    let mut even: Vec<(f32, u32)> = (0..5000).map(|i| (1.0, i)).collect();
    keep_top_p(&mut even, 3000.0);
    assert_eq!(even.len(), 3000);
    assert_eq!(even[2999].1, 2999);
}

#[test]
fn greedy_takes_the_first_maximum_and_skips_what_is_no_number() {
    let mut sampler = Sampler::new(SamplingParams::default(), &[]).unwrap();
    assert_eq!(sampler.sample(&[1.0, 5.0, 5.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NAN, f32::INFINITY, -3.0]).unwrap(), 2);
    assert!(matches!(
        sampler.sample(&[f32::NAN; 3]),
        Err(EngineError::NotFinite)
    ));
}

#[test]
fn penalties_count_prompt_and_completion() {
    let p = SamplingParams {
        repetition_penalty: 2.0,
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(p, &[0, 77]).unwrap();
    assert_eq!(sampler.sample(&[3.0, 2.0, -9.0]).unwrap(), 1);
    let p = SamplingParams {
        frequency_penalty: 0.6,
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(p, &[0]).unwrap();
    let drawn: Vec<u32> = (0..4)
        .map(|_| sampler.sample(&[2.0, 1.0]).unwrap())
        .collect();
    assert_eq!(drawn, [0, 0, 1, 0]);
}

#[test]
fn seeds_repeat_and_bad_values_are_named() {
    let run = |seed| {
        let mut s = Sampler::new(SamplingParams { seed, ..hot() }, &[]).unwrap();
        (0..50)
            .map(|_| s.sample(&logits()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    for bad in [
        SamplingParams {
            temperature: -1.0,
            ..hot()
        },
        SamplingParams {
            temperature: f32::NAN,
            ..hot()
        },
        SamplingParams {
            top_p: 0.0,
            ..hot()
        },
        SamplingParams {
            min_p: 1.5,
            ..hot()
        },
        SamplingParams {
            repetition_penalty: 0.0,
            ..hot()
        },
        SamplingParams {
            presence_penalty: 3.0,
            ..hot()
        },
    ] {
        assert!(matches!(bad.validate(), Err(EngineError::Parameter { .. })));
    }
}

/// Logits of a vocabulary, most of them far below the best.
fn many() -> Vec<f32> {
    (0..5003u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 20) as f32 - 9.0)
        .collect()
}

/// The tokens that `p` leaves, by sorting all of them.
fn kept(p: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut all: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
    all.sort_unstable_by(more_likely);
    all.truncate(p.top_k.unwrap_or(all.len()));
    let max = all[0].0;
    all.iter_mut()
        .for_each(|c| c.0 = ((c.0 - max) / p.temperature).exp());
    let total: f32 = all.iter().map(|c| c.0).sum();
    let mut sum = 0.0;
    let end = all.iter().position(|c| {
        sum += c.0;
        sum >= p.top_p * total
    });
    all.truncate(end.map_or(all.len(), |i| i + 1));
    let mut ids: Vec<u32> = all.iter().filter(|c| c.0 >= p.min_p).map(|c| c.1).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn filters_keep_what_sorting_all_tokens_keeps() {
    let logits = many();
    let filters: [(Option<usize>, f32, f32); 9] = [
        (None, 0.9, 0.2),
        (None, 1.0, 1.0),
        (Some(1), 1.0, 0.0),
        (Some(40), 1.0, 0.0),
        (Some(40), 0.5, 0.3),
        (Some(4000), 0.99, 0.0),
        (None, 0.9, 0.0),
        (None, 0.999, 0.0),
        (None, 1.0, 0.05),
    ];
    for (top_k, top_p, min_p) in filters {
        let params = SamplingParams {
            top_k,
            top_p,
            min_p,
            ..hot()
        };
        let want = kept(&params, &logits);
        let mut sampler = Sampler::new(params, &[]).unwrap();
        for _ in 0..20 {
            let token = sampler.sample(&logits).unwrap();
            let rank = logits.iter().filter(|&&l| l > logits[token as usize]);
            assert!(rank.count() <= want.len() + want.len() / 100);
        }
        let mut got: Vec<u32> = sampler.candidates.iter().map(|c| c.1).collect();
        got.sort_unstable();
        // Sums are rounded in another order: top-p may end somewhat earlier or later in a tail of light tokens.
        let most = if top_p < 1.0 { 1 + want.len() / 100 } else { 0 };
        let only = |a: &[u32], b: &[u32]| a.iter().filter(|t| !b.contains(t)).count();
        let differ = only(&got, &want) + only(&want, &got);
        assert!(differ <= most, "{differ}: {top_k:?} {top_p} {min_p}");
    }
}

#[test]
fn draws_of_a_vocabulary_follow_its_weights() {
    let logits = many();
    let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut sampler = Sampler::new(hot(), &[]).unwrap();
    let draws = 40_000;
    let parts: [fn(usize) -> bool; 2] = [|token| token < 2500, |token| token % 64 < 32];
    let mut found = [0; 2];
    for _ in 0..draws {
        let token = sampler.sample(&logits).unwrap() as usize;
        for (found, part) in found.iter_mut().zip(parts) {
            *found += u32::from(part(token));
        }
    }
    for (found, part) in found.into_iter().zip(parts) {
        let some = weights.iter().enumerate().filter(|(token, _)| part(*token));
        let want = some.map(|(_, w)| w).sum::<f64>() / total;
        assert!((f64::from(found) / f64::from(draws) - want).abs() < 0.015);
    }
}

#[test]
fn penalties_pass_over_logits_that_are_no_numbers() {
    let params = SamplingParams {
        repetition_penalty: f32::MIN_POSITIVE,
        ..hot()
    };
    let mut sampler = Sampler::new(params, &[0, 1, 2]).unwrap();
    // A positive logit divided by almost nothing stays finite, and so wins.
    let logits = [f32::NAN, 3.0, f32::INFINITY, 1.0];
    assert_eq!(sampler.sample(&logits).unwrap(), 1);
}
