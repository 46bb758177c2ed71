//! `tritburn compare`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use tritburn_eval::{Comparison, Metric, compare, find_samples, markdown, read_samples};

use crate::output;

/// Columns of a comparison.
pub(crate) const HEADER: [&str; 9] = [
    "task",
    "metric",
    "rows",
    "first",
    "second",
    "difference",
    "only first right",
    "only second right",
    "p",
];

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run, a stage or a checkpoint that `tritburn eval` was run on, a folder that holds
    /// samples_TASK.jsonl, or such a file
    first: PathBuf,
    /// The one to compare it with
    second: PathBuf,
    /// Task [default: every task that both were evaluated on]
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// What is right: acc (the likeliest label), acc_norm (the same per character) or exact_match
    /// (the generated text)
    #[arg(long, value_name = "NAME", default_value = "acc", value_parser = metric)]
    metric: Metric,
    /// Also write the comparison to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print a Markdown table
    #[arg(long)]
    markdown: bool,
}

fn metric(name: &str) -> Result<Metric, String> {
    [Metric::Acc, Metric::AccNorm, Metric::ExactMatch]
        .into_iter()
        .find(|metric| metric.name() == name)
        .ok_or_else(|| "there are acc, acc_norm and exact_match".to_owned())
}

/// What `--json` writes for each task.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    task: &'a str,
    first_samples: &'a Path,
    second_samples: &'a Path,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Compares and reports.
pub(crate) fn run(args: Args) -> Result<()> {
    let first = find_samples(&args.first)?;
    let second = find_samples(&args.second)?;
    // Two files need not be called alike.
    let pairs: Vec<(&str, &Path, &Path)> = if args.first.is_file() && args.second.is_file() {
        let named = first.iter().zip(second.values());
        named.map(|((t, a), b)| (t.as_str(), &**a, &**b)).collect()
    } else {
        let both = first.iter().filter_map(|(task, a)| {
            let wanted = args.task.as_ref().is_none_or(|wanted| wanted == task);
            let b = second.get(task).filter(|_| wanted)?;
            Some((task.as_str(), &**a, &**b))
        });
        both.collect()
    };
    if pairs.is_empty() {
        let list = |found: &std::collections::BTreeMap<String, PathBuf>| {
            found.keys().cloned().collect::<Vec<_>>().join(", ")
        };
        bail!(
            "no task that both were evaluated on{}: the first on {}, the second on {}. Run \
             `tritburn eval` on both with the same --task",
            args.task
                .map_or_else(String::new, |task| format!(" is {task}")),
            list(&first),
            list(&second)
        );
    }
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    for (task, a, b) in pairs {
        let comparison = compare(&read_samples(a)?, &read_samples(b)?, args.metric)?;
        rows.push(row(task, &comparison));
        entries.push(Entry {
            task,
            first_samples: a,
            second_samples: b,
            comparison,
        });
    }
    if let Some(path) = &args.json {
        output::write_json(path, &entries)?;
    }
    output::print(if args.markdown {
        markdown(&HEADER, &rows)
    } else {
        output::table(&HEADER, &rows)
    })?;
    Ok(())
}

/// A comparison in the columns of [`HEADER`].
pub(crate) fn row(task: &str, found: &Comparison) -> Vec<String> {
    let test = |cell: fn(&tritburn_eval::McNemar) -> String| {
        found.mcnemar.as_ref().map_or_else(|| "–".to_owned(), cell)
    };
    vec![
        task.to_owned(),
        found.metric.clone(),
        found.samples.to_string(),
        format!("{:.4}", found.first),
        format!("{:.4}", found.second),
        format!("{:+.4} ±{:.4}", found.first - found.second, found.stderr),
        test(|t| t.only_first.to_string()),
        test(|t| t.only_second.to_string()),
        test(|t| format!("{:.4}", t.p_value)),
    ]
}
