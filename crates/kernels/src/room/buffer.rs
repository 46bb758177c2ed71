//! Values that are overwritten before they are read.

use std::ops::{Deref, DerefMut};

use super::{Plain, Room};

/// Numbers that are written anew at every use, from the beginning of a cache line on. What is large lies
/// in large pages without gaps, so that a process holds no more than it uses.
#[derive(Debug)]
pub struct Buffer<T> {
    room: Room<T>,
    len: usize,
}

impl<T: Plain> Buffer<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            room: Room::zeros(0),
            len: 0,
        }
    }

    /// Makes it `len` long. What it holds then are zeros or what was there before; the memory stays if it is enough.
    pub fn resize(&mut self, len: usize) {
        if len > self.room.len() {
            // Given back first, so that the old and the new are never held at once.
            self.room = Room::zeros(0);
            self.room = Room::zeros(len);
        }
        self.len = len;
    }
}

impl<T: Plain> Default for Buffer<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.room[..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.room[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_stays_while_it_is_enough() {
        let mut buffer = Buffer::<f32>::new();
        assert!(buffer.is_empty());
        buffer.resize(100);
        let start = buffer.as_ptr();
        buffer.fill(2.0);
        buffer.resize(0);
        assert!(buffer.is_empty());
        buffer.resize(100);
        assert_eq!((buffer.as_ptr(), buffer.len()), (start, 100));
        let large = if cfg!(miri) { 200 } else { 1 << 17 };
        for len in [large, large + 1, 3] {
            buffer.resize(len);
            buffer.fill(1.0);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|v| *v == 1.0));
        }
    }
}
