//! TOML and overrides to the file's type, collecting every error on the way.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// The file, where it could be read at all, and everything wrong with it so far.
///
/// A key that does not fit is noted, taken out, and reading starts again, so that one run of the
/// program shows all of them.
pub(super) fn parse<T: DeserializeOwned>(
    text: &str,
    overrides: &[String],
) -> (Option<T>, Vec<String>) {
    let mut problems = Vec::new();
    let mut table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(e) => return (None, vec![e.to_string().trim_end().to_owned()]),
    };
    for entry in overrides {
        if let Err(problem) = set(&mut table, entry) {
            problems.push(problem);
        }
    }
    let mut root = Value::Table(table);
    loop {
        match serde_path_to_error::deserialize::<_, T>(root.clone()) {
            Ok(file) => return (Some(file), problems),
            Err(e) => {
                let path: Vec<String> = e.path().iter().map(ToString::to_string).collect();
                let message = e.inner().to_string();
                problems.push(format!(
                    "{}: {}",
                    e.path(),
                    message.trim_end().replace('\n', " ")
                ));
                if !remove(&mut root, &path) {
                    return (None, problems);
                }
            }
        }
    }
}

/// Takes the value at `path` out; a path that ends inside a value takes the innermost key that
/// exists. False where nothing was found.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    match value {
        Value::Table(table) => {
            let removed = table
                .get_mut(first)
                .is_some_and(|inner| remove(inner, rest));
            removed || table.remove(first).is_some()
        }
        Value::Array(items) => {
            let index = first.trim_matches(['[', ']']).parse::<usize>().ok();
            let Some(item) = index.and_then(|i| items.get_mut(i)) else {
                return false;
            };
            remove(item, rest)
        }
        _ => false,
    }
}

/// Applies `a.b.c=value`; `stage.NAME.key` reaches into the stage of that name.
fn set(table: &mut Table, entry: &str) -> Result<(), String> {
    let (path, text) = entry.split_once('=').ok_or_else(|| {
        format!("--set {entry}: expected key=value, for example model.hidden_size=256")
    })?;
    let value = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let keys: Vec<&str> = path.split('.').collect();
    let mut at = table;
    let mut keys = keys.as_slice();
    while let [key, rest @ ..] = keys {
        if rest.is_empty() {
            at.insert((*key).to_owned(), value);
            return Ok(());
        }
        let next = at.entry(*key).or_insert_with(|| Value::Table(Table::new()));
        keys = rest;
        at = match next {
            Value::Table(inner) => inner,
            Value::Array(items) => {
                let name = rest[0];
                keys = &rest[1..];
                let stage = items.iter_mut().find_map(|item| match item {
                    Value::Table(t) if t.get("name").and_then(Value::as_str) == Some(name) => {
                        Some(t)
                    }
                    _ => None,
                });
                stage.ok_or_else(|| format!("--set {entry}: there is no {key} named \"{name}\""))?
            }
            _ => return Err(format!("--set {entry}: `{key}` is a value, not a table")),
        };
    }
    Err(format!("--set {entry}: expected key=value"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::recipe::RecipeFile;

    #[test]
    fn all_errors_come_at_once_with_their_paths() {
        let text = "nam = 'x'\nseed = 'a'\n[model]\nhidden_size = -4\nwidth = 3\n[[stage]]\nlr = 'fast'\nkind = 'sleep'\n";
        let (file, problems) =
            parse::<RecipeFile>(text, &["train.keep=many".into(), "nonsense".into()]);
        assert!(file.is_some());
        for path in [
            "nam",
            "seed",
            "model.hidden_size",
            "model.width",
            "stage[0].lr",
            "stage[0].kind",
            "train.keep",
            "nonsense",
        ] {
            assert!(
                problems.iter().any(|p| p.contains(path)),
                "{path} missing in {problems:#?}"
            );
        }
    }

    #[test]
    fn overrides_reach_tables_and_named_stages() {
        let text = "[[stage]]\nname = 'a'\n[[stage]]\nname = 'b'\n";
        let set = [
            "seed=7",
            "data.dir=/tmp/x",
            "stage.b.lr=2e-4",
            "stage.b.distill.logits=3",
        ];
        let (file, problems) = parse::<RecipeFile>(text, &set.map(String::from));
        assert_eq!(problems, Vec::<String>::new());
        let file = file.unwrap();
        assert_eq!((file.seed, file.data.dir.as_str()), (7, "/tmp/x"));
        assert_eq!(
            (file.stage[1].lr, file.stage[1].distill.logits),
            (2e-4, 3.0)
        );
        assert_ne!(file.stage[0].lr, 2e-4);
    }
}
