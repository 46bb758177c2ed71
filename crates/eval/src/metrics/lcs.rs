//! Longest common subsequences of token numbers.

/// Length of a longest common subsequence, in memory of the order of `b`.
pub(super) fn length(a: &[u32], b: &[u32]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for token in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if token == other {
                diagonal + 1
            } else {
                above.max(row[j])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Marks in `used` the places of `a` that belong to one longest common subsequence with `b`.
///
/// Of several, the one that rouge-score finds: from the end, where neither token matches, it drops
/// the token of `b` only if that keeps strictly more. One bit a cell says which.
pub(super) fn mark(a: &[u32], b: &[u32], used: &mut [bool]) {
    let words = b.len().div_ceil(64);
    let mut left_is_better = vec![0_u64; a.len() * words];
    let mut row = vec![0_u32; b.len() + 1];
    for (i, token) in a.iter().enumerate() {
        let bits = &mut left_is_better[i * words..(i + 1) * words];
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let (above, left) = (row[j + 1], row[j]);
            if left > above {
                bits[j / 64] |= 1 << (j % 64);
            }
            row[j + 1] = if token == other {
                diagonal + 1
            } else {
                above.max(left)
            };
            diagonal = above;
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            used[i - 1] = true;
            i -= 1;
            j -= 1;
        } else if left_is_better[(i - 1) * words + (j - 1) / 64] >> ((j - 1) % 64) & 1 == 1 {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_places_agree() {
        let a: Vec<u32> = (0..150).map(|i| i * i % 17).collect();
        let b: Vec<u32> = (0..130).map(|i| i * 7 % 19).collect();
        let mut used = vec![false; a.len()];
        mark(&a, &b, &mut used);
        assert_eq!(used.iter().filter(|u| **u).count(), length(&a, &b));
        assert_eq!(length(&a, &b), length(&b, &a));
        assert_eq!(length(&a, &[]), 0);
        mark(&a, &[], &mut used);
        mark(&[], &b, &mut []);
    }

    #[test]
    fn ties_go_to_the_later_token_of_b() {
        let mut used = [false; 2];
        mark(&[1, 2], &[2, 1], &mut used);
        assert_eq!(used, [true, false]);
    }
}
