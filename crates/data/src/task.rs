//! Tasks as language modelling: a prompt template, and verbalised labels or a text to answer with.

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};
use crate::template::Template;

/// A task: where its rows are and how a row becomes a prompt and an answer.
///
/// The answer is a space and the label's text, or that of a column. Prompt and answer are tokenised one by one and then
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
    /// Text column that holds the answer, for tasks that generate text instead of choosing a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_column: Option<String>,
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

impl TaskSpec {
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
        if let Some(target) = &self.target_column {
            if !self.labels.is_empty() || !self.label_values.is_empty() {
                let what = "target_column is for tasks without labels; leave one of them out";
                faults.push(fault(what.to_owned()));
            }
            if self.columns.contains(target) {
                faults.push(fault(format!("the target column {target:?} is in columns")));
            }
        } else if self.labels.len() < 2 {
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

    /// Whether answers are texts of their own and not labels.
    pub fn generates(&self) -> bool {
        self.target_column.is_some()
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
    /// Replaces [`TaskSpec::target_column`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_column: Option<String>,
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
        let answers = self.labels.is_some() || self.target_column.is_some();
        let complete = self.columns.is_some() && self.template.is_some() && answers;
        if base.is_none() && !complete {
            return Err(vec![DataError::Task {
                task: self.name.clone(),
                message: format!(
                    "not built in; choose one of {} or set columns, template and labels (or target_column)",
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
            target_column: None,
            train_split: default_train_split(),
            eval_split: default_eval_split(),
        });
        replace(&mut spec.columns, &self.columns);
        replace(&mut spec.template, &self.template);
        replace(&mut spec.labels, &self.labels);
        replace(&mut spec.label_values, &self.label_values);
        replace(&mut spec.label_column, &self.label_column);
        if self.target_column.is_some() {
            spec.target_column.clone_from(&self.target_column);
        }
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
    fn a_text_can_be_the_answer() {
        let config = TaskConfig {
            name: "titles".to_owned(),
            columns: Some(vec!["body".to_owned()]),
            template: Some("{body}\nTitle:".to_owned()),
            target_column: Some("title".to_owned()),
            ..TaskConfig::default()
        };
        assert!(config.resolve().unwrap().generates());
        let both = TaskConfig {
            labels: Some(vec!["a".to_owned(), "b".to_owned()]),
            target_column: Some("body".to_owned()),
            ..config
        };
        assert_eq!(both.resolve().unwrap_err().len(), 2);
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
