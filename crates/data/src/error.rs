//! What can go wrong between a file on disk and a batch.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, DataError>;

/// A data error. Each names the file, and the column and row where there is one, and says what to
/// do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A file could not be replaced.
    #[error(transparent)]
    Write(#[from] tritburn_quant::QuantError),

    /// A file that is not on this machine could not be reached.
    #[error("{}: {message}", path.display())]
    Remote {
        /// Its address.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },

    /// The data path does not exist.
    #[error("{}: no such file or folder; pass the folder that holds the parquet files, such as data/mnli", path.display())]
    MissingPath {
        /// The path as given.
        path: PathBuf,
    },

    /// No file of the split was found.
    #[error(
        "{}: no files of split \"{split}\"; looked for {looked_for} in the folder and its sub-folders; parquet files there: {}",
        dir.display(), list(found)
    )]
    SplitNotFound {
        /// The folder searched.
        dir: PathBuf,
        /// The split asked for.
        split: String,
        /// The file name pattern.
        looked_for: String,
        /// Parquet files that are there, relative to `dir`.
        found: Vec<String>,
    },

    /// Several sub-folders hold the split.
    #[error(
        "{}: split \"{split}\" is in several sub-folders ({}); pass one of them as the data folder",
        dir.display(), list(candidates)
    )]
    AmbiguousSplit {
        /// The folder searched.
        dir: PathBuf,
        /// The split asked for.
        split: String,
        /// The sub-folders, or the differing shard counts.
        candidates: Vec<String>,
    },

    /// The file is no readable parquet file.
    #[error("{}: not a complete parquet file ({message}); fetch or generate it again", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
        /// What the parquet reader said.
        message: String,
    },

    /// A column is absent.
    #[error("{}: no column \"{column}\"; columns present: {}", path.display(), list(present))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// Columns of the file.
        present: Vec<String>,
    },

    /// A column has a type that does not fit its use.
    #[error("{}: column \"{column}\" has type {found}, expected {expected}; choose another column or convert it", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Arrow type found.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },

    /// A split without rows.
    #[error("{}: no rows; the file is valid parquet but empty: fetch or generate it again", path.display())]
    Empty {
        /// The (first) file.
        path: PathBuf,
    },

    /// A null where a value is needed.
    #[error("{}: column \"{column}\", row {row}: null; remove the row or fill in the value", path.display())]
    Null {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Row in the file, from 0.
        row: u64,
    },

    /// Text that is not UTF-8.
    #[error("{}: column \"{column}\", row {row}: not valid UTF-8; re-encode the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Row in the file, from 0.
        row: u64,
    },

    /// A label that is none of the task's classes.
    #[error(
        "{}: column \"{column}\", row {row}: label {label} is not one of the task's {} labels ({})",
        path.display(), classes.len(), list(classes)
    )]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Row in the file, from 0.
        row: u64,
        /// The label found.
        label: String,
        /// The labels known, in order.
        classes: Vec<String>,
    },

    /// A label of -1, as in the test splits of GLUE.
    #[error("{}: column \"{column}\", row {row}: label -1 marks an unlabelled split (GLUE test sets); use a validation split", path.display())]
    Unlabelled {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Row in the file, from 0.
        row: u64,
    },

    /// A tokenizer that cannot be used.
    #[error("{}: not a usable tokenizer.json ({message}); pass a tokenizer.json of the `tokenizers` library", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// A tokenizer lacks a token that training needs.
    #[error("{}: no {role} token; looked for {}; add it to the tokenizer or name it in tokenizer_config.json", path.display(), list(looked_for))]
    MissingSpecialToken {
        /// The tokenizer file.
        path: PathBuf,
        /// `bos`, `eos` or `pad`.
        role: &'static str,
        /// Names tried.
        looked_for: Vec<String>,
    },

    /// The tokenizers library failed.
    #[error("tokenizer: {action}: {message}")]
    Tokenize {
        /// What was attempted.
        action: &'static str,
        /// What the library said.
        message: String,
    },

    /// A prompt template that cannot be rendered.
    #[error("template {template:?}: {message}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong, and what would be right.
        message: String,
    },

    /// A task description that contradicts itself.
    #[error("task \"{task}\": {message}")]
    Task {
        /// Name of the task.
        task: String,
        /// What is wrong, and what would be right.
        message: String,
    },

    /// Files made from data that is now another.
    #[error("{}: cannot be used: {message}; make it again, or delete it", path.display())]
    Stale {
        /// The index or manifest.
        path: PathBuf,
        /// What does not fit.
        message: String,
    },

    /// An IDX file that is none, or says of itself what is not so.
    #[error("{}: {field}: {message}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// The field of the header, or the data behind it.
        field: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },

    /// A folder lacks one of the files that images come in.
    #[error(
        "{}: no {name} or {name}.gz; fetch MNIST with `tritburn data mnist --out {}`, name another \
         folder, or use the drawn digits in data/digits (split \"train\")",
        dir.display(), dir.display()
    )]
    MissingImages {
        /// The folder.
        dir: PathBuf,
        /// The file looked for.
        name: String,
    },

    /// A file that was fetched as one of MNIST's is another one.
    #[error("{name}: {message}; nothing was written, fetch it from another mirror")]
    Mnist {
        /// The file.
        name: String,
        /// What it is instead.
        message: String,
    },

    /// Settings or data from which no batch can be made.
    #[error("loader: {message}")]
    Loader {
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl DataError {
    /// Wraps an I/O error of `path`.
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

fn list(items: &[String]) -> String {
    const MOST: usize = 20;
    if items.is_empty() {
        return "none".to_owned();
    }
    let mut text = items
        .iter()
        .take(MOST)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > MOST {
        text.push_str(&format!(" and {} more", items.len() - MOST));
    }
    text
}
