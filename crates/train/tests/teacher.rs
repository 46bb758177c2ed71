//! Teachers from elsewhere: another width, another depth.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use tritburn_train::TrainError;

const RECIPE: &str = r#"
name = "teacher"
[model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 64
[tokenizer]
vocab_size = 300
[data]
max_length = 48
train_rows = 200
[train]
save_every = 0
log_every = 1
eval_rows = 20
[[stage]]
name = "only"
steps = 3
batch_size = 4
"#;

fn run(dir: &Path, set: &[String]) -> Result<PathBuf, TrainError> {
    common::run(RECIPE, "dir=data/mnli", dir, set)
}

#[test]
fn a_wider_and_deeper_model_teaches() {
    let dir = tempfile::tempdir().unwrap();
    let wide = [
        "model.hidden_size=64",
        "model.intermediate_size=96",
        "model.num_hidden_layers=3",
        "model.num_attention_heads=4",
        "model.num_key_value_heads=2",
    ];
    let teacher = run(&dir.path().join("teacher"), &wide.map(str::to_owned)).unwrap();
    let distil = |more: &[&str]| {
        let mut set = vec![
            "stage.only.kind=distill".to_owned(),
            "stage.only.ternary=true".to_owned(),
            format!(
                "stage.only.distill.teacher={}",
                teacher.join("final").display()
            ),
        ];
        set.extend(more.iter().map(ToString::to_string));
        set
    };
    let layers = [
        "stage.only.distill.split_heads=4",
        "stage.only.distill.layers=[0,-1]",
        "stage.only.distill.teacher_layers=[1,-1]",
    ];
    let student = run(&dir.path().join("student"), &distil(&layers)).unwrap();
    let metrics = std::fs::read_to_string(student.join("metrics.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(line["loss/relation"].as_f64().unwrap() > 0.0, "{line}");
    assert!(line["loss/logits"].as_f64().unwrap() > 0.0, "{line}");
    assert!(line.get("loss/hidden").is_none(), "{line}");

    let wrong = [
        "stage.only.distill.split_heads=3",
        "stage.only.distill.layers=[0,1]",
        "stage.only.distill.teacher_layers=[1,5]",
        "stage.only.distill.hidden=1",
    ];
    let mut wrong = distil(&wrong);
    wrong.push("tokenizer.vocab_size=301".into());
    wrong.push("model.hidden_size=48".into());
    let error = run(&dir.path().join("wrong"), &wrong)
        .unwrap_err()
        .to_string();
    for part in [
        "vocabulary of 300",
        "teacher_layers: names a layer",
        "3 does not divide the teacher",
        "hidden: the teacher has 3 blocks of width 64, the student 2 of 48",
    ] {
        assert!(error.contains(part), "{part} is missing from {error}");
    }
}
