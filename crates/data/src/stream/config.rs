//! Settings of a streamed corpus.

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Which documents to hand out, where some are kept back for validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Those that are not kept back.
    #[default]
    Train,
    /// Those that are kept back.
    Validation,
    /// Both.
    All,
}

/// What to do about a shard that is gone, truncated or corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadShards {
    /// End with an error that names it.
    #[default]
    Stop,
    /// Name it in the log and go on without the rows that cannot be read. The others keep their
    /// places in the order.
    Skip,
}

/// `[data.stream]` of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Files, folders, patterns such as `web/*.parquet`; empty for the recipe's
    /// `data.corpus`. A folder that `tritburn data prepare` wrote is read instead of its sources.
    pub shards: Vec<String>,
    /// Split, where a folder is given.
    pub split: String,
    /// Whether every epoch takes shards, and the row groups inside each, in another order.
    pub shuffle_shards: bool,
    /// Documents that are shuffled among each other; 1 keeps their order.
    pub shuffle_window: usize,
    /// Threads that tokenise; 0 for all that the machine has.
    pub workers: usize,
    /// Share of documents kept back for validation, chosen by a hash of their text: copies of a
    /// document fall on the same side, whatever the shard.
    pub validation_share: f64,
    /// Which of them to hand out.
    pub part: Part,
    /// Whether rows tell where documents begin, so that attention and loss stay inside them.
    pub separate_documents: bool,
    /// Whether each of the devices that share a step reads shards of its own, where reading and
    /// tokenising all of them is too slow for one. A run then goes on with as many devices as it had.
    pub shards_per_device: bool,
    /// What to do about shards that cannot be read.
    pub bad_shards: BadShards,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            split: "train".to_owned(),
            shuffle_shards: true,
            shuffle_window: 2048,
            workers: 0,
            validation_share: 0.0,
            part: Part::Train,
            separate_documents: false,
            shards_per_device: false,
            bad_shards: BadShards::Stop,
        }
    }
}

/// Most documents of a window, so that a window fits into memory.
const LARGEST_WINDOW: usize = 1 << 20;
/// Most threads.
const MOST_WORKERS: usize = 1024;

impl StreamConfig {
    /// Everything that is wrong with the settings.
    pub fn faults(&self) -> Vec<DataError> {
        let mut faults = Vec::new();
        let mut check = |fine: bool, message: String| {
            if !fine {
                faults.push(DataError::Loader { message });
            }
        };
        check(
            (1..=LARGEST_WINDOW).contains(&self.shuffle_window),
            format!(
                "data.stream.shuffle_window is {}; give 1 to {LARGEST_WINDOW} documents",
                self.shuffle_window
            ),
        );
        check(
            self.workers <= MOST_WORKERS,
            format!(
                "data.stream.workers is {}; give at most {MOST_WORKERS}",
                self.workers
            ),
        );
        check(
            (0.0..1.0).contains(&self.validation_share),
            format!(
                "data.stream.validation_share is {}; give a share from 0 to below 1",
                self.validation_share
            ),
        );
        check(
            self.part != Part::Validation || self.validation_share > 0.0,
            "data.stream.part is validation, but validation_share keeps nothing back".to_owned(),
        );
        check(
            !self.split.is_empty(),
            "data.stream.split is empty; name a split such as train".to_owned(),
        );
        faults
    }

    /// Threads to tokenise on.
    pub(super) fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        }
    }

    /// Whether a document of that hash is handed out.
    pub(super) fn keeps(&self, hash: u64) -> bool {
        // Both sides as shares of 2⁶⁴; a share below 1 leaves room for no rounding up to it.
        let back = (hash as f64) < self.validation_share * 2_f64.powi(64);
        match self.part {
            Part::Train => !back,
            Part::Validation => back,
            Part::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_come_at_once() {
        let config = StreamConfig {
            shuffle_window: 0,
            validation_share: f64::NAN,
            workers: 5000,
            split: String::new(),
            ..StreamConfig::default()
        };
        assert_eq!(config.faults().len(), 4);
        assert!(StreamConfig::default().faults().is_empty());
        let none_back = StreamConfig {
            part: Part::Validation,
            ..StreamConfig::default()
        };
        assert_eq!(none_back.faults().len(), 1);
        let unknown = serde_json::from_str::<StreamConfig>(r#"{"shuffle": 3}"#);
        assert!(unknown.is_err());
    }

    #[test]
    fn the_parts_cover_everything_once() {
        let of = |part| StreamConfig {
            validation_share: 0.25,
            part,
            ..StreamConfig::default()
        };
        let (train, validation) = (of(Part::Train), of(Part::Validation));
        for hash in [0, 1 << 61, (1 << 62) - 1, 1 << 62, 1 << 63, u64::MAX] {
            assert!(train.keeps(hash) != validation.keeps(hash), "{hash}");
            assert!(of(Part::All).keeps(hash));
        }
        assert!(validation.keeps(1 << 61) && train.keeps(1 << 63));
    }
}
