#![allow(clippy::unwrap_used)]
use super::*;
use crate::compare::{Metric, compare};
use crate::results::{RunInfo, write_results};
use crate::sample_files::{Samples, read_samples};
use crate::test_scorer::Fixed;

fn rows() -> Vec<TaskRow> {
    let row = |doc_id, text: &str, label| TaskRow {
        doc_id,
        texts: vec![text.to_owned()],
        label,
    };
    vec![
        row(0, "good .", 1),
        row(1, "bad .", 0),
        row(2, "fine .", 1),
        row(3, "dull .", 0),
    ]
}

fn tokenizer(spec: &TaskSpec) -> Tokenizer {
    let texts = tritburn_data::render_texts(spec, &rows()).unwrap();
    Tokenizer::train_bpe(texts.iter().map(String::as_str).cycle().take(40), 400).unwrap()
}

/// A scorer that answers `label` to everything.
fn always(label: &str, tokenizer: &Tokenizer) -> Fixed {
    let liked = tokenizer.encode(&format!(" {label}"), false).unwrap();
    let text = liked.iter().copied().chain([tokenizer.eos(), 5]).collect();
    Fixed {
        liked,
        text,
        seen: Vec::new(),
    }
}

fn evaluate(label: &str) -> TaskEvaluation {
    let spec = TaskSpec::built_in("sst2").unwrap();
    let tokenizer = tokenizer(&spec);
    let mut scorer = always(label, &tokenizer);
    let mut told = Vec::new();
    let done = evaluate_task(
        &mut scorer,
        &tokenizer,
        &spec,
        &rows(),
        64,
        &mut |done, all| {
            told.push((done, all));
        },
    );
    assert_eq!(told, [(4, 4)]);
    assert_eq!(scorer.seen.len(), 8);
    assert_eq!(scorer.seen[0].0, scorer.seen[1].0);
    done.unwrap()
}

#[test]
fn a_constant_answer_gets_its_share() {
    let done = evaluate("positive");
    assert_eq!(done.acc.value, 0.5);
    assert_eq!(done.exact_match.value, 0.5);
    assert!((done.acc.stderr - (0.25_f64 / 3.0).sqrt()).abs() < 1e-12);
    assert_eq!(done.confusion, [[0, 2], [0, 2]]);
    assert_eq!(
        done.samples[0].filtered_resps,
        ("positive".to_owned(), "positive".to_owned())
    );
    assert_eq!((done.samples[0].acc, done.samples[1].acc), (1, 0));
    assert_eq!(done.samples[1].doc["sentence"], "bad .");
}

#[test]
fn results_have_lm_evals_keys_and_pair_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out/results.json");
    let info = RunInfo {
        model: "runs/x".to_owned(),
        rows_in_split: 9,
        ..RunInfo::default()
    };
    let done = evaluate("positive");
    let written = write_results(&path, &done.report(), &info).unwrap();
    let samples = written.samples;
    let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["results"]["sst2"]["acc,none"], 0.5);
    assert!(json["results"]["sst2"]["exact_match_stderr,none"].is_number());
    // Two right positives and two wrong ones: 4/6; no negative is found.
    assert_eq!(json["results"]["sst2"]["f1,none"], 4.0 / 6.0);
    assert_eq!(json["results"]["sst2"]["mcc,none"], 0.0);
    assert_eq!(json["tritburn"]["positive_label"], "positive");
    let table = std::fs::read_to_string(written.table).unwrap();
    assert!(
        table.contains("| sst2 | validation | 4 | f1 | 0.6667 | ±"),
        "{table}"
    );
    assert_eq!(json["n-samples"]["sst2"]["original"], 9);
    assert_eq!(json["n-samples"]["sst2"]["effective"], 4);
    assert_eq!(samples.file_name().unwrap(), "samples_sst2.jsonl");
    let read = read_samples(&samples).unwrap();
    assert_eq!(read, Samples::Choices(done.samples.clone()));

    let other = evaluate("negative").samples;
    let both = compare(&read, &Samples::Choices(other.clone()), Metric::Acc).unwrap();
    let test = both.mcnemar.unwrap();
    assert_eq!((test.only_first, test.only_second), (2, 2));
    assert_eq!((both.first, both.second, test.p_value), (0.5, 0.5, 1.0));
    // Differences 1, −1, 1, −1 in some order.
    assert!((both.stderr - (4.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    let rest = Samples::Choices(other[1..].to_vec());
    assert!(compare(&read, &rest, Metric::Acc).is_err());
    let mut changed = other;
    changed[2].target = 0;
    let message = compare(&read, &Samples::Choices(changed), Metric::ExactMatch)
        .unwrap_err()
        .to_string();
    assert!(message.contains("row 2 differs"), "{message}");
}

#[test]
fn a_broken_sample_file_names_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("samples_sst2.jsonl");
    let line = serde_json::to_string(&evaluate("positive").samples[0]).unwrap();
    std::fs::write(&path, format!("{line}\n{}", &line[..20])).unwrap();
    assert!(
        read_samples(&path)
            .unwrap_err()
            .to_string()
            .contains("line 2")
    );
}

#[test]
fn no_rows_and_nan_are_errors() {
    struct Broken;
    impl Scorer for Broken {
        fn loglikelihood(
            &mut self,
            requests: &[(Vec<u32>, Vec<u32>)],
        ) -> Result<Vec<crate::LogLikelihood>> {
            Ok(vec![
                crate::LogLikelihood {
                    sum: f64::NAN,
                    is_greedy: false
                };
                requests.len()
            ])
        }
        fn generate_greedy(
            &mut self,
            prompts: &[Vec<u32>],
            _: usize,
            _: &[u32],
        ) -> Result<Vec<Vec<u32>>> {
            Ok(vec![Vec::new(); prompts.len()])
        }
    }
    let spec = TaskSpec::built_in("sst2").unwrap();
    let tokenizer = tokenizer(&spec);
    let run = |rows: &[TaskRow]| {
        evaluate_task(&mut Broken, &tokenizer, &spec, rows, 64, &mut |_, _| {}).unwrap_err()
    };
    assert!(matches!(run(&[]), EvalError::Nothing { .. }));
    assert!(matches!(
        run(&rows()),
        EvalError::LogLikelihood { doc_id: 0, .. }
    ));
}

#[test]
fn length_normalisation_counts_characters() {
    let mut spec = TaskSpec::built_in("sst2").unwrap();
    spec.labels = vec!["no".to_owned(), "certainly".to_owned()];
    // −1.0 over 2 characters against −1.8 over 9.
    let resps = vec![(-1.0, false), (-1.8, false)];
    let sample = judge(&spec, &rows()[0], resps, " certainly \n".to_owned()).unwrap();
    assert_eq!((sample.acc, sample.acc_norm, sample.exact_match), (0, 1, 1));
}
