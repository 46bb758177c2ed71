//! Names of models.

use std::fmt;

/// Longest name of an owner, a model or a revision.
const MAX_PART: usize = 96;

/// `org/name`, with `@revision` and `:file.gguf` where they are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    pub(crate) repo: String,
    pub(crate) revision: String,
    pub(crate) file: Option<String>,
}

impl ModelName {
    /// Reads `org/name[@revision][:file.gguf]`; `None` for what the hub has no such name for.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (text, file) = match text.split_once(':') {
            Some((text, file)) => (text, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (org, name) = repo.split_once('/')?;
        let gguf = |file: &str| file.to_ascii_lowercase().ends_with(".gguf") && is_path(file);
        let valid = is_part(org) && is_part(name) && is_path(revision) && file.is_none_or(gguf);
        valid.then(|| Self {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// Folder of the repository in the cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    (1..=MAX_PART).contains(&text.len()) && text.chars().all(plain) && !dots
}

/// Whether a name with slashes stays below the folder it is put in.
pub(crate) fn is_path(text: &str) -> bool {
    let part = |part: &str| {
        let odd = part.contains(['\\', ':', '\0']) || part.chars().any(char::is_control);
        !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !odd
    };
    text.len() <= 1024 && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for (text, repo, revision, file) in [
            ("a/b", "a/b", "main", None),
            (
                "HuggingFaceTB/SmolLM2-135M",
                "HuggingFaceTB/SmolLM2-135M",
                "main",
                None,
            ),
            ("a/b@v1.0", "a/b", "v1.0", None),
            ("a/b@refs/pr/1", "a/b", "refs/pr/1", None),
            ("a/b:x.Q4_0.gguf", "a/b", "main", Some("x.Q4_0.gguf")),
            ("a/b@c:d/x.GGUF", "a/b", "c", Some("d/x.GGUF")),
        ] {
            let name = ModelName::parse(text).unwrap();
            assert_eq!(
                (name.repo.as_str(), name.revision.as_str()),
                (repo, revision)
            );
            assert_eq!(name.file.as_deref(), file);
            assert_eq!(name.to_string(), text);
        }
        for text in [
            "",
            "a",
            "/a/b",
            "a/b/c",
            "./a",
            "../a",
            "a/..",
            "a/b@",
            "a/b@../x",
            "a/b:x.bin",
            "a/b:../x.gguf",
            "a/b:",
            "a b/c",
            "runs/a/final",
            "~/a",
            "a//b",
            "a/b:/x.gguf",
        ] {
            assert_eq!(ModelName::parse(text), None, "{text}");
        }
        assert_eq!(ModelName::parse(&format!("a/{}", "b".repeat(97))), None);
    }
}
