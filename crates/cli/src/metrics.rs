//! Reading a run's `metrics.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

/// A value at every step that has one: `(step, value)`.
pub(crate) type Points = Vec<(f64, f64)>;

/// The curves of one stage.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stage {
    /// Name of the stage.
    pub(crate) name: String,
    /// The loss that is minimised.
    pub(crate) loss: Points,
    /// Its cross-entropy term, where it has others beside.
    pub(crate) ce: Points,
    /// The same loss on held-out data, `eval/held_out/mse`.
    pub(crate) held_out: Points,
    /// `eval/<task>/acc` by task.
    pub(crate) accuracy: BTreeMap<String, Points>,
}

/// Reads `metrics.jsonl`: the stages in the order in which they ran.
///
/// # Errors
/// Where it cannot be read or a line is malformed; the message names the line.
pub(crate) fn read(path: &Path) -> Result<Vec<Stage>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut stages = Vec::new();
    for (index, line) in text.lines().enumerate() {
        add_line(&mut stages, line).map_err(|why| {
            anyhow!(
                "{}, line {}: {why}. Delete the line, or continue the run with --resume, which \
                 drops a line cut short",
                path.display(),
                index + 1
            )
        })?;
    }
    if stages
        .iter()
        .all(|stage| stage.loss.is_empty() && stage.accuracy.is_empty())
    {
        bail!(
            "{}: holds no loss and no accuracy yet; train for some steps first",
            path.display()
        );
    }
    Ok(stages)
}

fn add_line(stages: &mut Vec<Stage>, line: &str) -> Result<()> {
    let fields: Map<String, Value> = serde_json::from_str(line)?;
    let step = number(&fields, "step")?.ok_or_else(|| anyhow!("`step` is missing"))?;
    let name = match fields.get("stage") {
        Some(Value::String(name)) => name.as_str(),
        None => "",
        Some(other) => bail!("`stage` is {other}, not a text"),
    };
    let point =
        |key: &str| Ok::<_, anyhow::Error>(number(&fields, key)?.map(|value| (step, value)));
    let index = stages
        .iter()
        .position(|stage| stage.name == name)
        .unwrap_or(stages.len());
    if index == stages.len() {
        stages.push(Stage {
            name: name.to_owned(),
            ..Stage::default()
        });
    }
    let stage = &mut stages[index];
    stage.loss.extend(point("loss")?);
    if fields.keys().filter(|key| key.starts_with("loss/")).count() > 1 {
        stage.ce.extend(point("loss/ce")?);
    }
    stage.held_out.extend(point("eval/held_out/mse")?);
    for key in fields.keys() {
        let task = key
            .strip_prefix("eval/")
            .and_then(|rest| rest.strip_suffix("/acc"));
        let Some(task) = task else { continue };
        if let Some(point) = point(key)? {
            stage
                .accuracy
                .entry(task.to_owned())
                .or_default()
                .push(point);
        }
    }
    Ok(())
}

/// A number, or nothing where it is absent or null, as JSON writes what is not finite.
fn number(fields: &Map<String, Value>, key: &str) -> Result<Option<f64>> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value
                .as_f64()
                .ok_or_else(|| anyhow!("`{key}` is {value}, not a number"))?;
            Ok(Some(number))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Vec<Stage>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn stages_come_apart() {
        let text = r#"{"step":1,"stage":"teacher","loss":2.5,"loss/ce":2.5}
{"step":2,"stage":"teacher","loss":null,"eval/mnli/acc":0.5}
{"step":3,"stage":"distill","loss":9,"loss/ce":2,"loss/logits":7}
{"step":4,"stage":"distill","eval/held_out/mse":0.5}
"#;
        let teacher = Stage {
            name: "teacher".to_owned(),
            loss: vec![(1.0, 2.5)],
            ce: vec![],
            held_out: vec![],
            accuracy: [("mnli".to_owned(), vec![(2.0, 0.5)])].into(),
        };
        let distill = Stage {
            name: "distill".to_owned(),
            loss: vec![(3.0, 9.0)],
            ce: vec![(3.0, 2.0)],
            held_out: vec![(4.0, 0.5)],
            accuracy: BTreeMap::new(),
        };
        assert_eq!(parse(text).unwrap(), [teacher, distill]);
    }

    #[test]
    fn malformed_lines_are_named() {
        let first = "{\"step\":1,\"stage\":\"a\",\"loss\":1}\n";
        for (line, why) in [
            ("{\"step\":2,\"lo", "EOF"),
            ("[1]", "invalid type"),
            ("{\"loss\":1}", "`step` is missing"),
            ("{\"step\":\"x\"}", "`step` is \"x\""),
            (
                "{\"step\":2,\"stage\":\"a\",\"loss\":\"low\"}",
                "`loss` is \"low\"",
            ),
        ] {
            let text = parse(&format!("{first}{line}\n")).unwrap_err().to_string();
            assert!(text.contains("line 2: ") && text.contains(why), "{text}");
        }
        assert!(parse("").unwrap_err().to_string().contains("holds no loss"));
    }
}
