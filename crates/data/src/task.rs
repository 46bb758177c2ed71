//! Classification tasks as language modelling: a prompt template and verbalised labels.

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};
use crate::template::Template;

/// A task: where its rows are and how a row becomes a prompt and an answer.
///
/// The answer is a space and the label's text. Prompt and answer are tokenised one by one and then
/// joined, so that the answer's tokens are the same whatever the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name, as on the command line.
    pub name: String,
    /// Text columns of the data set.
    pub columns: Vec<String>,
    /// Prompt with `{column}` in place of each text; `{{` and `}}` stand for braces.
    pub template: String,
    /// Verbalised labels, in the order of the class numbers.
    pub labels: Vec<String>,
    /// Class names for data sets whose label column is text, in the same order; the verbalised
    /// labels if empty.
    #[serde(default)]
    pub label_values: Vec<String>,
    /// Column of the label.
    #[serde(default = "default_label_column")]
    pub label_column: String,
    /// Split to train on.
    #[serde(default = "default_train_split")]
    pub train_split: String,
    /// Split to evaluate on.
    #[serde(default = "default_eval_split")]
    pub eval_split: String,
}

fn default_label_column() -> String {
    "label".to_owned()
}

fn default_train_split() -> String {
    "train".to_owned()
}

fn default_eval_split() -> String {
    "validation".to_owned()
}

/// A row of the table of built-in tasks.
struct BuiltIn {
    name: &'static str,
    columns: &'static [&'static str],
    template: &'static str,
    labels: &'static [&'static str],
    eval_split: &'static str,
}

const NLI: &[&str] = &["entailment", "neutral", "contradiction"];
const NLI_TEMPLATE: &str = "Premise: {premise}\nHypothesis: {hypothesis}\nRelation:";

/// Class numbers follow GLUE: qnli, rte: 0 entailment; mrpc: 1 equivalent; cola: 1 acceptable.
const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "mnli",
        columns: &["premise", "hypothesis"],
        template: NLI_TEMPLATE,
        labels: NLI,
        eval_split: "validation_matched",
    },
    BuiltIn {
        name: "snli",
        columns: &["premise", "hypothesis"],
        template: NLI_TEMPLATE,
        labels: NLI,
        eval_split: "validation",
    },
    BuiltIn {
        name: "qnli",
        columns: &["question", "sentence"],
        template: "Question: {question}\nSentence: {sentence}\nAnswered:",
        labels: &["yes", "no"],
        eval_split: "validation",
    },
    BuiltIn {
        name: "sst2",
        columns: &["sentence"],
        template: "Review: {sentence}\nSentiment:",
        labels: &["negative", "positive"],
        eval_split: "validation",
    },
    BuiltIn {
        name: "rte",
        columns: &["sentence1", "sentence2"],
        template: "Premise: {sentence1}\nHypothesis: {sentence2}\nFollows:",
        labels: &["yes", "no"],
        eval_split: "validation",
    },
    BuiltIn {
        name: "mrpc",
        columns: &["sentence1", "sentence2"],
        template: "First: {sentence1}\nSecond: {sentence2}\nSame meaning:",
        labels: &["no", "yes"],
        eval_split: "validation",
    },
    BuiltIn {
        name: "cola",
        columns: &["sentence"],
        template: "Sentence: {sentence}\nGrammatical:",
        labels: &["no", "yes"],
        eval_split: "validation",
    },
];

impl TaskSpec {
    /// The built-in task of that name.
    pub fn built_in(name: &str) -> Option<Self> {
        let owned = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        BUILT_IN
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| Self {
                name: entry.name.to_owned(),
                columns: owned(entry.columns),
                template: entry.template.to_owned(),
                labels: owned(entry.labels),
                label_values: Vec::new(),
                label_column: default_label_column(),
                train_split: default_train_split(),
                eval_split: entry.eval_split.to_owned(),
            })
    }

    /// Names of the built-in tasks.
    pub fn built_in_names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|entry| entry.name).collect()
    }

    /// Checks that the description is consistent; returns every fault found.
    pub fn faults(&self) -> Vec<DataError> {
        let fault = |message: String| DataError::Task {
            task: self.name.clone(),
            message,
        };
        let mut faults = Vec::new();
        match Template::parse(&self.template) {
            Err(error) => faults.push(error),
            Ok(template) => faults.extend(template.bind(&self.columns).err()),
        }
        if self.columns.is_empty() {
            faults.push(fault("columns is empty; name the text columns".to_owned()));
        }
        if self.labels.len() < 2 {
            faults.push(fault("labels needs at least two entries".to_owned()));
        }
        for (index, label) in self.labels.iter().enumerate() {
            if label.trim() != label || label.is_empty() {
                faults.push(fault(format!(
                    "label {label:?} is empty or has spaces around it"
                )));
            }
            if self.labels[..index].contains(label) {
                faults.push(fault(format!("label {label:?} occurs twice")));
            }
        }
        if !self.label_values.is_empty() && self.label_values.len() != self.labels.len() {
            faults.push(fault(format!(
                "label_values has {} entries, labels {}",
                self.label_values.len(),
                self.labels.len()
            )));
        }
        faults
    }

    /// The prompt of a row; `texts` in the order of `columns`.
    ///
    /// # Errors
    /// If the template is malformed or names an unknown column.
    pub fn prompt(&self, texts: &[String]) -> Result<String> {
        Template::parse(&self.template)?
            .bind(&self.columns)?
            .render(texts)
    }

    /// The answer for a class: a space and the label's text. `None` if there is no such class.
    pub fn answer(&self, label: usize) -> Option<String> {
        self.labels.get(label).map(|label| format!(" {label}"))
    }
}

/// The `[task]` table of a recipe: a built-in task by name, of which any field may be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Name of a built-in task, or of a new one that sets columns, template and labels.
    pub name: String,
    /// Replaces [`TaskSpec::columns`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Replaces [`TaskSpec::template`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Replaces [`TaskSpec::labels`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Replaces [`TaskSpec::label_values`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_values: Option<Vec<String>>,
    /// Replaces [`TaskSpec::label_column`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Replaces [`TaskSpec::train_split`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_split: Option<String>,
    /// Replaces [`TaskSpec::eval_split`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_split: Option<String>,
}

impl TaskConfig {
    /// The task with the replaced fields.
    ///
    /// # Errors
    /// All faults: an unknown name without columns, template and labels, and those of
    /// [`TaskSpec::faults`].
    pub fn resolve(&self) -> std::result::Result<TaskSpec, Vec<DataError>> {
        let base = TaskSpec::built_in(&self.name);
        let complete = self.columns.is_some() && self.template.is_some() && self.labels.is_some();
        if base.is_none() && !complete {
            return Err(vec![DataError::Task {
                task: self.name.clone(),
                message: format!(
                    "not built in; choose one of {} or set columns, template and labels",
                    TaskSpec::built_in_names().join(", ")
                ),
            }]);
        }
        let mut spec = base.unwrap_or_else(|| TaskSpec {
            name: self.name.clone(),
            columns: Vec::new(),
            template: String::new(),
            labels: Vec::new(),
            label_values: Vec::new(),
            label_column: default_label_column(),
            train_split: default_train_split(),
            eval_split: default_eval_split(),
        });
        replace(&mut spec.columns, &self.columns);
        replace(&mut spec.template, &self.template);
        replace(&mut spec.labels, &self.labels);
        replace(&mut spec.label_values, &self.label_values);
        replace(&mut spec.label_column, &self.label_column);
        replace(&mut spec.train_split, &self.train_split);
        replace(&mut spec.eval_split, &self.eval_split);
        let faults = spec.faults();
        if faults.is_empty() {
            Ok(spec)
        } else {
            Err(faults)
        }
    }
}

fn replace<T: Clone>(target: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        target.clone_from(value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn built_in_tasks_have_no_faults_and_known_names() {
        for name in ["mnli", "qnli", "sst2", "rte", "mrpc", "cola"] {
            let spec = TaskSpec::built_in(name).unwrap();
            assert!(spec.faults().is_empty(), "{name}: {:?}", spec.faults());
        }
        assert_eq!(
            TaskSpec::built_in("mnli").unwrap().eval_split,
            "validation_matched"
        );
        assert!(TaskSpec::built_in("MNLI").is_none());
    }

    #[test]
    fn a_recipe_replaces_single_fields() {
        let config = TaskConfig {
            name: "sst2".to_owned(),
            labels: Some(vec!["bad".to_owned(), "good".to_owned()]),
            ..TaskConfig::default()
        };
        let spec = config.resolve().unwrap();
        assert_eq!(spec.answer(1).as_deref(), Some(" good"));
        assert_eq!(spec.answer(2), None);
        assert_eq!(
            spec.prompt(&["fine .".to_owned()]).unwrap(),
            "Review: fine .\nSentiment:"
        );
    }

    #[test]
    fn unknown_names_need_a_whole_description() {
        let config = TaskConfig {
            name: "boolq".to_owned(),
            ..TaskConfig::default()
        };
        let faults = config.resolve().unwrap_err();
        assert!(
            faults[0].to_string().contains("choose one of mnli"),
            "{}",
            faults[0]
        );
    }

    #[test]
    fn all_faults_come_at_once() {
        let config = TaskConfig {
            name: "sst2".to_owned(),
            template: Some("{text}".to_owned()),
            labels: Some(vec!["a".to_owned(), "a".to_owned(), " b".to_owned()]),
            label_values: Some(vec!["x".to_owned()]),
            ..TaskConfig::default()
        };
        let faults = config.resolve().unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"name": "sst2", "lables": ["a", "b"]}"#;
        let error = serde_json::from_str::<TaskConfig>(text).unwrap_err();
        assert!(error.to_string().contains("lables"));
    }
}
