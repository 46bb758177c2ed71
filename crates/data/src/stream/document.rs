//! Documents between a shard and the packer, and where they come from.

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// A document as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// Text that is still to be tokenised.
    Text(String),
    /// Tokens, complete with start and end, and the hash of the text; no tokens for a blank text.
    Tokens { tokens: Vec<u32>, hash: u64 },
}

/// Number by which documents are kept back: the first eight bytes of the text's SHA-256.
pub(super) fn hash_of(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Whether a text holds nothing to learn from; such documents are left out.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Tokens of a text, see [`complete`].
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(complete(tokenizer, tokenizer.encode(text, false)?))
}

/// The start token in front, if there is one, and the end token behind.
pub(super) fn complete(tokenizer: &Tokenizer, ids: Vec<u32>) -> Vec<u32> {
    let whole = tokenizer.bos().into_iter().chain(ids);
    whole.chain([tokenizer.eos()]).collect()
}

/// Reads documents of units, which are row groups of shards.
pub(super) trait Source: Send {
    /// The documents of `rows` of a unit, in order, one for each row, blank ones included.
    ///
    /// Reading on where the last call ended is cheap. After an error, what of the rows came before
    /// it is in `into`.
    fn read(&mut self, unit: usize, rows: Range<u64>, into: &mut Vec<Document>) -> Result<()>;
}
