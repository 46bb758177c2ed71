//! Rows of a fixed length out of documents one behind the other.

use std::collections::VecDeque;

use crate::loader::Segments;

/// Where a token stands in the order of documents: epoch, window, place of its document in the
/// window, place in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) epoch: u64,
    pub(super) window: u64,
    pub(super) index: u64,
    pub(super) offset: u64,
}

/// A document, or what is left of it; `place` is that of the first token left.
struct Piece {
    place: Place,
    tokens: Vec<u32>,
    from: usize,
}

/// Tokens that wait to be packed.
#[derive(Default)]
pub(super) struct Packer {
    pieces: VecDeque<Piece>,
    waiting: usize,
}

/// Rows that grow by one at a time.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) tokens: Vec<u32>,
    pub(super) targets: Vec<u32>,
    pub(super) loss_mask: Vec<f32>,
    pub(super) segments: Segments,
}

impl Packer {
    /// Puts the rest of a document, from `place` on, behind all others.
    pub(super) fn push(&mut self, place: Place, tokens: Vec<u32>) {
        let from = usize::try_from(place.offset).map_or(tokens.len(), |o| o.min(tokens.len()));
        if from < tokens.len() {
            self.waiting += tokens.len() - from;
            self.pieces.push_back(Piece {
                place,
                tokens,
                from,
            });
        }
    }

    /// Tokens that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Place of the next token, if one waits.
    pub(super) fn place(&self) -> Option<Place> {
        self.pieces.front().map(|piece| piece.place)
    }

    /// Takes `seq` tokens as a row; at least one more must wait, the last target. With `apart`, the
    /// first token of a document is no target.
    pub(super) fn take_row(&mut self, seq: usize, apart: bool, rows: &mut Rows) {
        let (mut segment, mut left) = (0, seq);
        while let Some(piece) = self.pieces.front_mut().filter(|_| left > 0) {
            let size = left.min(piece.tokens.len() - piece.from);
            let taken = &piece.tokens[piece.from..piece.from + size];
            rows.tokens.extend_from_slice(taken);
            rows.segments.ids.extend(std::iter::repeat_n(segment, size));
            rows.segments.positions.extend(0..size as u32);
            rows.targets.extend_from_slice(&taken[1..]);
            rows.loss_mask.extend(std::iter::repeat_n(1.0, size - 1));
            piece.from += size;
            piece.place.offset += size as u64;
            left -= size;
            self.waiting -= size;
            if piece.from == piece.tokens.len() {
                self.pieces.pop_front();
                segment += 1;
                // The target of its last token begins the next document.
                if let Some(next) = self.pieces.front() {
                    rows.targets.push(next.tokens[next.from]);
                    rows.loss_mask.push(if apart { 0.0 } else { 1.0 });
                }
            } else {
                rows.targets.push(piece.tokens[piece.from]);
                rows.loss_mask.push(1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Place = Place {
        epoch: 0,
        window: 0,
        index: 0,
        offset: 0,
    };

    #[test]
    fn rows_know_their_documents() {
        let mut packer = Packer::default();
        packer.push(START, vec![10, 11, 2]);
        let second = Place { index: 1, ..START };
        packer.push(second, vec![20, 21, 22, 23, 24, 2]);
        packer.push(Place { index: 2, ..START }, vec![30, 2]);
        let mut rows = Rows::default();
        packer.take_row(5, true, &mut rows);
        assert_eq!(rows.tokens, [10, 11, 2, 20, 21]);
        assert_eq!(rows.targets, [11, 2, 20, 21, 22]);
        assert_eq!(rows.loss_mask, [1.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(rows.segments.ids, [0, 0, 0, 1, 1]);
        assert_eq!(rows.segments.positions, [0, 1, 2, 0, 1]);
        assert_eq!(packer.waiting(), 6);
        assert_eq!(
            packer.place(),
            Some(Place {
                offset: 2,
                ..second
            })
        );

        let mut rows = Rows::default();
        packer.take_row(4, false, &mut rows);
        assert_eq!(rows.tokens, [22, 23, 24, 2]);
        assert_eq!(rows.targets, [23, 24, 2, 30]);
        assert_eq!(rows.loss_mask, [1.0; 4]);
        assert_eq!(rows.segments.positions, [0, 1, 2, 3]);
        assert_eq!(packer.waiting(), 2);
    }

    #[test]
    fn a_place_inside_a_document_takes_the_rest() {
        let mut packer = Packer::default();
        packer.push(Place { offset: 2, ..START }, vec![10, 11, 12, 2]);
        packer.push(Place { offset: 9, ..START }, vec![1, 2]);
        assert_eq!(packer.waiting(), 2);
        let mut rows = Rows::default();
        packer.take_row(1, true, &mut rows);
        assert_eq!((rows.tokens, rows.targets), (vec![12], vec![2]));
    }
}
