//! The built-in tasks and their prompts.

use serde::{Deserialize, Serialize};

use crate::error::{DataError, Result};
use crate::task::TaskSpec;

/// Whose prompts and label words a built-in task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptStyle {
    /// This project's.
    #[default]
    Own,
    /// Those of the lm-evaluation-harness, for scores that compare with published ones.
    LmEval,
}

/// A prompt and what may follow it.
#[derive(Clone, Copy)]
struct Prompt {
    template: &'static str,
    labels: &'static [&'static str],
}

/// A row of the table.
struct BuiltIn {
    name: &'static str,
    columns: &'static [&'static str],
    own: Prompt,
    lm_eval: Option<Prompt>,
    /// Class names in the data, where they are text and not the verbalised labels.
    label_values: &'static [&'static str],
    /// Column of the answer, for tasks that generate text.
    target: Option<&'static str>,
    train_split: &'static str,
    eval_split: &'static str,
}

const fn prompt(template: &'static str, labels: &'static [&'static str]) -> Prompt {
    Prompt { template, labels }
}

const NLI: Prompt = prompt(
    "Premise: {premise}\nHypothesis: {hypothesis}\nRelation:",
    &["entailment", "neutral", "contradiction"],
);

const MNLI: BuiltIn = BuiltIn {
    name: "mnli",
    columns: &["premise", "hypothesis"],
    own: NLI,
    lm_eval: Some(prompt(
        "{premise}\nQuestion: {hypothesis|full_stop} True, False or Neither?\nAnswer:",
        &["True", "Neither", "False"],
    )),
    label_values: &[],
    target: None,
    train_split: "train",
    eval_split: "validation_matched",
};

const SNLI: BuiltIn = BuiltIn {
    name: "snli",
    lm_eval: None,
    eval_split: "validation",
    ..MNLI
};

/// The three rounds are splits of one data set, and tasks of their own in lm-eval.
const ANLI_R1: BuiltIn = BuiltIn {
    name: "anli_r1",
    lm_eval: Some(prompt(
        "{premise}\nQuestion: {hypothesis} True, False, or Neither?\nAnswer:",
        &["True", "Neither", "False"],
    )),
    train_split: "train_r1",
    eval_split: "test_r1",
    ..MNLI
};

const RTE: BuiltIn = BuiltIn {
    name: "rte",
    columns: &["sentence1", "sentence2"],
    own: prompt(
        "Premise: {sentence1}\nHypothesis: {sentence2}\nFollows:",
        &["yes", "no"],
    ),
    lm_eval: Some(prompt(
        "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:",
        &["True", "False"],
    )),
    ..SNLI
};

/// Class numbers follow GLUE: qnli, rte: 0 entailment; wnli: 1 entailment; mrpc: 1 equivalent;
/// cola: 1 acceptable.
const BUILT_IN: &[BuiltIn] = &[
    MNLI,
    BuiltIn {
        name: "mnli_mismatch",
        eval_split: "validation_mismatched",
        ..MNLI
    },
    BuiltIn {
        name: "qnli",
        columns: &["question", "sentence"],
        own: prompt(
            "Question: {question}\nSentence: {sentence}\nAnswered:",
            &["yes", "no"],
        ),
        lm_eval: Some(prompt(
            "{question}\n{sentence}\nQuestion: Does this response answer the question?\nAnswer:",
            &["yes", "no"],
        )),
        ..SNLI
    },
    BuiltIn {
        name: "sst2",
        columns: &["sentence"],
        own: prompt("Review: {sentence}\nSentiment:", &["negative", "positive"]),
        lm_eval: Some(prompt(
            "{sentence}\nQuestion: Is this sentence positive or negative?\nAnswer:",
            &["negative", "positive"],
        )),
        ..SNLI
    },
    RTE,
    BuiltIn {
        name: "wnli",
        own: prompt(RTE.own.template, &["no", "yes"]),
        lm_eval: Some(prompt(
            "{sentence1}\nQuestion: {sentence2} True or False?\nAnswer:",
            &["False", "True"],
        )),
        ..RTE
    },
    BuiltIn {
        name: "mrpc",
        own: prompt(
            "First: {sentence1}\nSecond: {sentence2}\nSame meaning:",
            &["no", "yes"],
        ),
        lm_eval: Some(prompt(
            "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nQuestion: Do both sentences mean the same thing?\nAnswer:",
            &["no", "yes"],
        )),
        ..RTE
    },
    BuiltIn {
        name: "cola",
        columns: &["sentence"],
        own: prompt("Sentence: {sentence}\nGrammatical:", &["no", "yes"]),
        lm_eval: Some(prompt(
            "{sentence}\nQuestion: Does this sentence make sense?\nAnswer:",
            &["no", "yes"],
        )),
        ..SNLI
    },
    SNLI,
    ANLI_R1,
    BuiltIn {
        name: "anli_r2",
        train_split: "train_r2",
        eval_split: "test_r2",
        ..ANLI_R1
    },
    BuiltIn {
        name: "anli_r3",
        train_split: "train_r3",
        eval_split: "test_r3",
        ..ANLI_R1
    },
    BuiltIn {
        name: "xnli",
        ..SNLI
    },
    BuiltIn {
        name: "nli_mix",
        ..SNLI
    },
    BuiltIn {
        name: "cad_nli",
        eval_split: "test",
        ..SNLI
    },
    BuiltIn {
        name: "sick",
        columns: &["sentence_A", "sentence_B"],
        own: prompt(
            "Premise: {sentence_A}\nHypothesis: {sentence_B}\nRelation:",
            NLI.labels,
        ),
        ..SNLI
    },
    BuiltIn {
        name: "scitail",
        own: prompt(NLI.template, &["entailment", "neutral"]),
        label_values: &["entails", "neutral"],
        eval_split: "test",
        ..SNLI
    },
    BuiltIn {
        name: "cnn_dailymail",
        columns: &["article"],
        own: prompt("Article: {article}\nSummary:", &[]),
        target: Some("highlights"),
        eval_split: "test",
        ..SNLI
    },
];

fn owned(items: &[&str]) -> Vec<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

impl TaskSpec {
    /// The built-in task of that name, with this project's prompt.
    pub fn built_in(name: &str) -> Option<Self> {
        let entry = BUILT_IN.iter().find(|entry| entry.name == name)?;
        Some(Self {
            name: entry.name.to_owned(),
            columns: owned(entry.columns),
            template: entry.own.template.to_owned(),
            labels: owned(entry.own.labels),
            label_values: owned(entry.label_values),
            label_column: "label".to_owned(),
            target_column: entry.target.map(str::to_owned),
            train_split: entry.train_split.to_owned(),
            eval_split: entry.eval_split.to_owned(),
        })
    }

    /// Names of the built-in tasks.
    pub fn built_in_names() -> Vec<&'static str> {
        BUILT_IN.iter().map(|entry| entry.name).collect()
    }

    /// This task with the prompt and label words of `style`; everything else stays.
    ///
    /// # Errors
    /// If the task has no such prompt.
    pub fn with_style(mut self, style: PromptStyle) -> Result<Self> {
        if style == PromptStyle::Own {
            return Ok(self);
        }
        let has_one = || BUILT_IN.iter().filter(|entry| entry.lm_eval.is_some());
        let entry = has_one().find(|entry| entry.name == self.name);
        let Some(prompt) = entry.and_then(|entry| entry.lm_eval) else {
            let names: Vec<&str> = has_one().map(|entry| entry.name).collect();
            return Err(DataError::Task {
                task: self.name,
                message: format!(
                    "lm-eval has no prompt for it; it has for {}",
                    names.join(", ")
                ),
            });
        };
        self.template = prompt.template.to_owned();
        self.labels = owned(prompt.labels);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn built_in_tasks_have_no_faults_and_known_names() {
        for name in TaskSpec::built_in_names() {
            let spec = TaskSpec::built_in(name).unwrap();
            assert!(spec.faults().is_empty(), "{name}: {:?}", spec.faults());
            if let Ok(spec) = spec.with_style(PromptStyle::LmEval) {
                assert!(spec.faults().is_empty(), "{name}: {:?}", spec.faults());
            }
        }
        let mnli = TaskSpec::built_in("mnli").unwrap();
        assert_eq!(mnli.eval_split, "validation_matched");
        assert!(TaskSpec::built_in("MNLI").is_none());
    }

    #[test]
    fn lm_evals_prompts_are_its_own() {
        let lm_eval = |name| {
            let spec = TaskSpec::built_in(name).unwrap();
            spec.with_style(PromptStyle::LmEval).unwrap()
        };
        let texts = |texts: &[&str]| owned(texts);
        let mnli = lm_eval("mnli");
        let ends = "A man sleeps .\nQuestion: He rests. True, False or Neither?\nAnswer:";
        for hypothesis in ["He rests.", " He rests ", "He rests"] {
            let texts = texts(&["A man sleeps .", hypothesis]);
            assert_eq!(mnli.prompt(&texts).unwrap(), ends);
        }
        assert_eq!(mnli.answer(1).as_deref(), Some(" Neither"));
        assert_eq!(
            lm_eval("qnli").prompt(&texts(&["Who?", "He."])).unwrap(),
            "Who?\nHe.\nQuestion: Does this response answer the question?\nAnswer:"
        );
        assert_eq!(
            lm_eval("sst2").prompt(&texts(&["fine ."])).unwrap(),
            "fine .\nQuestion: Is this sentence positive or negative?\nAnswer:"
        );
        let none = TaskSpec::built_in("sick").unwrap();
        let message = none.with_style(PromptStyle::LmEval).unwrap_err();
        assert!(message.to_string().contains("it has for mnli"), "{message}");
    }
}
