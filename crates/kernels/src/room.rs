//! Memory without gaps for what is large.

#[cfg(target_os = "linux")]
mod arena;
mod buffer;

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::activations::ActBlock;
use crate::layout::WeightBlock;

pub use buffer::Buffer;

/// Bytes from which memory is part of the [arena].
#[cfg(target_os = "linux")]
const LARGE: usize = 1 << 16;

/// Whole cache lines.
#[derive(Debug)]
pub(crate) enum Memory {
    /// An allocation of their own, as room without values.
    Own(Vec<WeightBlock>),
    #[cfg(target_os = "linux")]
    Part(arena::Part),
}

impl Memory {
    pub(crate) fn new(len: usize) -> Self {
        // What looks for mistakes knows the ends of allocations, not those of parts.
        #[cfg(target_os = "linux")]
        if len >= LARGE / size_of::<WeightBlock>()
            && !cfg!(any(miri, debug_assertions))
            && let Some(part) = arena::Part::new(len)
        {
            return Self::Part(part);
        }
        Self::Own(Vec::with_capacity(len))
    }

    /// Whether all of it is zeros already.
    pub(crate) fn is_zeroed(&self) -> bool {
        match self {
            Self::Own(_) => false,
            #[cfg(target_os = "linux")]
            Self::Part(_) => true,
        }
    }

    pub(crate) fn start(&mut self) -> *mut WeightBlock {
        match self {
            Self::Own(room) => room.as_mut_ptr(),
            #[cfg(target_os = "linux")]
            Self::Part(part) => part.start(),
        }
    }
}

/// Numbers that zero bytes are a value of, without padding.
///
/// # Safety
/// All zeros are a value, no larger alignment than a cache line is asked for, and nothing is dropped.
#[allow(unsafe_code)]
pub unsafe trait Plain: Copy + Send + Sync {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: a primitive number.
        #[allow(unsafe_code)]
        unsafe impl Plain for $type {}
    )*};
}
plain!(u8, i8, u16, i16, u32, i32, f32);

// SAFETY: bytes on the boundary of a cache line, without padding.
#[allow(unsafe_code)]
unsafe impl Plain for WeightBlock {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Plain for ActBlock {}
// SAFETY: as its elements.
#[allow(unsafe_code)]
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Values of a fixed number, zeros at first, from the beginning of a cache line on. Where they are many
/// they lie beside others in large pages.
pub(crate) struct Room<T> {
    start: *mut T,
    len: usize,
    /// Holds them.
    _memory: Memory,
    values: PhantomData<T>,
}

// SAFETY: the values are owned, as those of a `Vec`.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Room<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Sync> Sync for Room<T> {}

impl<T: Plain> Room<T> {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        let lines = bytes.div_ceil(size_of::<WeightBlock>());
        let mut memory = Memory::new(lines);
        let start = memory.start();
        if !memory.is_zeroed() {
            // SAFETY: there is room for so many lines.
            #[allow(unsafe_code)]
            unsafe {
                start.write_bytes(0, lines);
            }
        }
        Self {
            start: start.cast(),
            len,
            _memory: memory,
            values: PhantomData,
        }
    }
}

impl<T: Plain> Clone for Room<T> {
    fn clone(&self) -> Self {
        let mut room = Self::zeros(self.len);
        room.copy_from_slice(self);
        room
    }
}

impl<T: PartialEq> PartialEq for Room<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T> Deref for Room<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `zeros` has made `len` values from `start` on, in memory that this owns.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.start, self.len)
        }
    }
}

impl<T> DerefMut for Room<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is the only one.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.start, self.len)
        }
    }
}

impl<T> std::fmt::Debug for Room<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Room({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_zeros_and_keep_what_is_written() {
        let large = if cfg!(miri) { 100 } else { 1 << 20 };
        let mut rooms: Vec<Room<u16>> = [0, 1, 31, 33, large, large + 1].map(Room::zeros).into();
        for (i, room) in rooms.iter_mut().enumerate() {
            assert!(room.iter().all(|v| *v == 0));
            assert!(room.as_ptr().cast::<WeightBlock>().is_aligned());
            room.fill(i as u16 + 1);
            assert_eq!(room.clone(), *room);
        }
        for (i, room) in rooms.iter().enumerate() {
            assert!(room.iter().all(|v| *v == i as u16 + 1));
        }
    }
}
