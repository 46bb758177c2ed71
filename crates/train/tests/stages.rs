//! What a stage may be asked for beside the plain method: other starts, teachers, gradients.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::Value;
use tritburn_nn::device::DeviceKind;
use tritburn_train::observer::TrainEvent;
use tritburn_train::recipe::Recipe;
use tritburn_train::run::RunDir;
use tritburn_train::{TrainError, train};

fn parse(set: &[&str]) -> Result<Recipe, TrainError> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let text = std::fs::read_to_string(root.join("recipes/mnli-smoke.toml")).unwrap();
    let mut all: Vec<String> = set.iter().map(ToString::to_string).collect();
    all.push(format!("data.dir={}", root.join("data/mnli").display()));
    let corpus = root.join("data/refinedweb");
    all.push(format!("data.corpus={}", corpus.display()));
    Recipe::parse(&text, "mnli-smoke.toml", &all)
}

/// The losses of a run, and the lines of its log.
fn trained(recipe: &Recipe, out: &Path) -> (Vec<f32>, Vec<Value>) {
    let run = RunDir::create_at(out.to_path_buf(), recipe).unwrap();
    let mut losses = Vec::new();
    let mut observer = |event: &TrainEvent| {
        if let TrainEvent::Step { loss, .. } = event {
            losses.push(*loss);
        }
    };
    let stop = AtomicBool::new(false);
    train(recipe, &run, &DeviceKind::Cpu.into(), &mut observer, &stop).unwrap();
    let log = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|l| serde_json::from_str(l).unwrap());
    (losses, lines.collect())
}

/// Values of `key` in the stage's lines.
fn values(lines: &[Value], stage: &str, key: &str) -> Vec<f64> {
    let of_stage = lines.iter().filter(|l| l["stage"] == stage);
    of_stage.filter_map(|l| l[key].as_f64()).collect()
}

#[test]
fn blocks_that_run_again_leave_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let documents = [
        "data.stream.shuffle_window=16",
        "data.stream.separate_documents=true",
        "stage.bitdistill.distill.form=eq12",
        "stage.bitdistill.distill.layers=[0,1]",
        "stage.bitdistill-cpt.sub_norm=all",
        "stage.bitdistill.sub_norm=all",
    ];
    let hidden = [
        "stage.bitdistill.distill.hidden=10",
        "stage.bitdistill-cpt.distill.teacher=base",
        "stage.bitdistill-cpt.distill.hidden=3",
    ];
    let cases = [
        ("plain", &[][..]),
        ("documents", &documents[..]),
        ("hidden", &hidden[..]),
    ];
    for (name, set) in cases {
        let again = [set, &["train.checkpoint_activations=true"]].concat();
        let [one, two] = [set, &again].map(|set| {
            let out = dir.path().join(format!("{name}-{}", set.len()));
            let losses = trained(&parse(set).unwrap(), &out).0;
            let weights = out.join("stages/bitdistill-cpt/model.safetensors");
            (losses, std::fs::read(weights).unwrap())
        });
        assert_eq!(one.0[..17], two.0[..17], "{name}");
        assert!(one.1 == two.1, "{name}: weights differ");
        // Gradients of relations are added in another order.
        for (a, b) in one.0.iter().zip(&two.0) {
            assert!(
                (a - b).abs() < 1e-3 * a,
                "{name}: {one:?} {two:?}",
                one = one.0,
                two = two.0
            );
        }
    }
}

#[test]
fn int8_gradients_for_inputs_follow_those_in_full_precision() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, _) = trained(&parse(&[]).unwrap(), &dir.path().join("plain"));
    let set = ["stage.bitdistill-cpt.quant.int8_grad_input=true"];
    let (int8, _) = trained(&parse(&set).unwrap(), &dir.path().join("int8"));
    // Two stages in full precision and the first forward pass of the third are the same.
    assert_eq!(plain[..13], int8[..13]);
    assert_ne!(plain[13..16], int8[13..16]);
    for (a, b) in plain.iter().zip(&int8).take(16) {
        assert!((a - b).abs() < 1e-3 * a, "{plain:?} {int8:?}");
    }
}

#[test]
fn calibrated_norms_change_a_model_less() {
    let dir = tempfile::tempdir().unwrap();
    for layout in ["sub_ln", "all"] {
        let drift = |init: &str| {
            let set = [
                format!("stage.bitdistill-cpt.sub_norm={layout}"),
                format!("stage.bitdistill.sub_norm={layout}"),
                format!("stage.bitdistill-cpt.norm_init={init}"),
            ];
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            let out = dir.path().join(format!("{layout}-{init}"));
            let (_, lines) = trained(&parse(&set).unwrap(), &out);
            values(&lines, "bitdistill-cpt", "surgery/norms_rel")[0]
        };
        let (one, calibrated) = (drift("one"), drift("calibrated"));
        assert!(calibrated < 0.5 * one, "{layout}: {calibrated} of {one}");
    }
    let refused = parse(&[
        "stage.bitdistill-cpt.sub_norm=layer_norm",
        "stage.bitdistill-cpt.norm_init=calibrated",
    ]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("stage[2].norm_init"), "{message}");
}

#[test]
fn a_corpus_can_have_a_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let set = [
        "stage.bitdistill-cpt.distill.teacher=base",
        "stage.bitdistill-cpt.distill.relation=0",
        "stage.bitdistill-cpt.distill.temperature=1",
        "stage.bitdistill-cpt.distill.logits=1",
    ];
    let (losses, lines) = trained(&parse(&set).unwrap(), &dir.path().join("run"));
    let of = |key| values(&lines, "bitdistill-cpt", key);
    let (ce, kd) = (of("loss/ce"), of("loss/logits"));
    assert_eq!((ce.len(), kd.len()), (4, 4));
    for (at, (ce, kd)) in ce.iter().zip(&kd).enumerate() {
        let loss = f64::from(losses[12 + at]);
        assert!(
            *kd > 0.0 && (ce + kd - loss).abs() < 1e-5 * loss,
            "step {at}"
        );
    }
    let refused = parse(&["stage.bitdistill-cpt.distill.teacher=later"]);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("stage[2].distill.teacher"), "{message}");
}

#[test]
fn a_stage_can_start_from_a_folder_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = trained(&parse(&[]).unwrap(), &dir.path().join("whole"));
    let start = dir.path().join("whole/stages/bitdistill-cpt");
    let from = format!("stage.bitdistill.from={}", start.display());
    let teacher = dir.path().join("whole/stages/fp-sft");
    let teacher = format!("stage.bitdistill.distill.teacher={}", teacher.display());
    let (other, _) = trained(
        &parse(&[&from, &teacher]).unwrap(),
        &dir.path().join("other"),
    );
    assert_eq!(whole, other);
    let other_vocabulary = [
        &from[..],
        &teacher,
        "tokenizer.vocab_size=500",
        "stage.bitdistill.name=other",
    ];
    let recipe = parse(&other_vocabulary).unwrap();
    let run = RunDir::create_at(dir.path().join("refused"), &recipe).unwrap();
    let stop = AtomicBool::new(false);
    let refused = train(
        &recipe,
        &run,
        &DeviceKind::Cpu.into(),
        &mut |_: &TrainEvent| (),
        &stop,
    );
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("from: has rows for 400 tokens"),
        "{message}"
    );
}
