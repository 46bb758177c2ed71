//! Reads numbers and texts one after another and never past the end.

/// What is wrong, without the name of the file.
pub(super) type Parsed<T> = Result<T, String>;

/// A place in the bytes of a file.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "the file ends at byte {}, but {n} bytes are needed from byte {} on; download or \
                 convert it again",
                self.bytes.len(),
                self.at
            )
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    pub(super) fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `size` bytes each.
    pub(super) fn count(&mut self, what: &str, size: usize) -> Parsed<usize> {
        let count = self.u64()?;
        let most = self.left() / size.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!(
                "{count} {what} cannot fit in the {} bytes left of the file",
                self.left()
            )),
        }
    }

    /// A text, copied before it is checked: the file may change, and a text that is not UTF-8 may
    /// not be.
    pub(super) fn text(&mut self) -> Parsed<String> {
        let len = self.count("bytes of text", 1)?;
        let bytes = self.take(len)?.to_vec();
        String::from_utf8(bytes).map_err(|_| format!("the text at byte {} is not UTF-8", self.at))
    }
}
