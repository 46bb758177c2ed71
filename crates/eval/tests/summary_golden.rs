//! ROUGE and BLEU against rouge-score and sacrebleu on real summaries.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tritburn_data::{RowReader, SplitFiles};
use tritburn_eval::{BleuCounts, Rouge, RougeScore, RougeScorer};

fn shared(variable: &str, folder: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    std::env::var(variable).map_or_else(|_| default().join(folder), PathBuf::from)
}

/// White space collapsed, cut behind `.`, `!` and `?` before a space, the first three of it.
fn lead_3(article: &str) -> String {
    let words: Vec<&str> = article.split_whitespace().collect();
    let mut sentences = vec![Vec::new()];
    for word in words {
        sentences.last_mut().unwrap().push(word);
        if word.ends_with(['.', '!', '?']) {
            sentences.push(Vec::new());
        }
    }
    let first: Vec<String> = sentences.iter().take(3).map(|s| s.join(" ")).collect();
    first.join("\n").trim_end().to_owned()
}

/// Pairs of reference and lead-3 summary, and the golden values; `None` where they are absent.
fn golden() -> Option<(Vec<(String, String)>, Value)> {
    let values = shared("TRITBURN_GOLDEN_DIR", "golden").join("summary_metrics.json");
    let data = shared("TRITBURN_DATA_DIR", "data").join("cnn_dailymail/3.0.0");
    for path in [&values, &data] {
        if !path.exists() {
            eprintln!("skipped: {} is absent", path.display());
            return None;
        }
    }
    let values: Value = serde_json::from_slice(&std::fs::read(values).unwrap()).unwrap();
    let files = SplitFiles::find(&data, "test").unwrap().files;
    let rows = RowReader::open(&files, &["article", "highlights"], None).unwrap();
    let pairs: Vec<(String, String)> = rows
        .map(|row| {
            let texts = row.unwrap().texts;
            (texts[1].clone(), lead_3(&texts[0]))
        })
        .collect();
    assert_eq!(values["rows"], pairs.len());
    assert_eq!(values["first_hypothesis"], pairs[0].1.as_str());
    Some((pairs, values))
}

/// A score by its name in the golden file.
type Kind = (&'static str, fn(&Rouge) -> RougeScore);

fn close(name: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() < 1e-9,
        "{name}: {found} {expected}"
    );
}

#[test]
fn golden_bleu_is_sacrebleus() {
    let Some((pairs, values)) = golden() else {
        return;
    };
    let mut counts = BleuCounts::default();
    for (reference, prediction) in &pairs {
        counts.add(reference, prediction);
    }
    let (found, expected) = (counts.score(), &values["sacrebleu"]);
    close("score", found.score, &expected["score"]);
    close("bp", found.brevity_penalty, &expected["bp"]);
    for (n, precision) in found.precisions.into_iter().enumerate() {
        close("precision", precision, &expected["precisions"][n]);
    }
    assert_eq!(expected["sys_len"], found.predicted_len);
    assert_eq!(expected["ref_len"], found.reference_len);
}

#[test]
fn golden_rouge_is_rouge_scores() {
    let Some((pairs, values)) = golden() else {
        return;
    };
    for stemmer in [false, true] {
        let expected = &values[format!("rouge_stemmer_{stemmer}")];
        let scorer = RougeScorer { stemmer };
        let scores: Vec<_> = pairs.iter().map(|(r, p)| scorer.score(r, p)).collect();
        let kinds: [Kind; 4] = [
            ("rouge1", |s| s.rouge1),
            ("rouge2", |s| s.rouge2),
            ("rougeL", |s| s.rouge_l),
            ("rougeLsum", |s| s.rouge_lsum),
        ];
        for (name, kind) in kinds {
            let mean = |part: fn(RougeScore) -> f64| {
                scores.iter().map(|s| part(kind(s))).sum::<f64>() / scores.len() as f64
            };
            close(name, mean(|s| s.precision), &expected[name]["precision"]);
            close(name, mean(|s| s.recall), &expected[name]["recall"]);
            close(name, mean(|s| s.fmeasure), &expected[name]["fmeasure"]);
            close(
                name,
                kind(&scores[0]).fmeasure,
                &expected["first_row"][name],
            );
        }
    }
}
