//! F1 and Matthews correlation of two-class tables, with standard errors.
//!
//! Both are smooth functions of the four counts that do not change when all counts grow alike, so
//! the delta method gives their variance under multinomial sampling as `Σ count · (∂score/∂count)²`.
//! lm-eval draws bootstrap samples for the same quantity.

use crate::task::Share;

/// Counts of a `confusion[target][prediction]` table, class 1 being the positive one.
struct Table {
    tp: f64,
    fp: f64,
    fn_: f64,
    tn: f64,
}

impl Table {
    fn of(confusion: &[Vec<u64>]) -> Option<Self> {
        let [negative, positive] = confusion else {
            return None;
        };
        let ([tn, fp], [fn_, tp]) = (negative.as_slice(), positive.as_slice()) else {
            return None;
        };
        Some(Self {
            tp: *tp as f64,
            fp: *fp as f64,
            fn_: *fn_ as f64,
            tn: *tn as f64,
        })
    }

    /// In the order tp, fp, fn, tn.
    fn stderr(&self, gradient: [f64; 4]) -> f64 {
        let counts = [self.tp, self.fp, self.fn_, self.tn];
        let terms = counts.iter().zip(gradient).map(|(count, g)| count * g * g);
        terms.sum::<f64>().sqrt()
    }
}

/// F1 of class 1, `2·tp / (2·tp + fp + fn)`, from `confusion[target][prediction]`.
///
/// 0 where nothing is or should be positive, as in scikit-learn; the standard error is 0 there.
/// `None` for tables of other than two classes.
pub fn f1(confusion: &[Vec<u64>]) -> Option<Share> {
    let table = Table::of(confusion)?;
    let wrong = table.fp + table.fn_;
    let whole = 2.0 * table.tp + wrong;
    if whole == 0.0 {
        return Some(Share {
            value: 0.0,
            stderr: 0.0,
        });
    }
    let by_tp = 2.0 * wrong / (whole * whole);
    let by_wrong = -2.0 * table.tp / (whole * whole);
    Some(Share {
        value: 2.0 * table.tp / whole,
        stderr: table.stderr([by_tp, by_wrong, by_wrong, 0.0]),
    })
}

/// Matthews correlation, between −1 and 1, from `confusion[target][prediction]`
/// (Matthews 1975, doi:10.1016/0005-2795(75)90109-9).
///
/// 0 where targets or predictions are all of one class, as in scikit-learn; the standard error is
/// 0 there. `None` for tables of other than two classes.
pub fn matthews(confusion: &[Vec<u64>]) -> Option<Share> {
    let table = Table::of(confusion)?;
    let Table { tp, fp, fn_, tn } = table;
    // Sums of columns and rows: predicted and true positives, predicted and true negatives.
    let [pp, tp_all, pn, tn_all] = [tp + fp, tp + fn_, tn + fn_, tn + fp];
    let root = (pp * tp_all).sqrt() * (pn * tn_all).sqrt();
    if root == 0.0 {
        return Some(Share {
            value: 0.0,
            stderr: 0.0,
        });
    }
    let value = (tp * tn - fp * fn_) / root;
    let slope = |numerator: f64, first: f64, second: f64| {
        numerator / root - value / 2.0 * (1.0 / first + 1.0 / second)
    };
    let gradient = [
        slope(tn, pp, tp_all),
        slope(-fn_, pp, tn_all),
        slope(-fp, pn, tp_all),
        slope(tp, pn, tn_all),
    ];
    Some(Share {
        value,
        stderr: table.stderr(gradient),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn close(share: Share, value: f64, stderr: f64) {
        assert!((share.value - value).abs() < 1e-9, "{share:?}");
        assert!((share.stderr - stderr).abs() < 1e-9, "{share:?}");
    }

    #[test]
    fn values_are_those_of_the_formulas() {
        // tp 40, fp 10, fn 20, tn 30: F1 = 80/110; (1200 − 200)/√(50·60·50·40).
        let table = [vec![30, 10], vec![20, 40]];
        let by_tp = 60.0 / 12_100.0_f64;
        let by_wrong = 80.0 / 12_100.0_f64;
        let f1_stderr = (40.0 * by_tp * by_tp + 30.0 * by_wrong * by_wrong).sqrt();
        close(f1(&table).unwrap(), 80.0 / 110.0, f1_stderr);
        let found = matthews(&table).unwrap();
        assert!((found.value - 1000.0 / 6_000_000.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn the_standard_error_is_what_resampling_finds() {
        // By numeric slopes of the score itself, instead of the formulas above.
        let table = [vec![30_u64, 10], vec![20, 40]];
        for score in [f1, matthews] {
            let scaled = |cell: usize, by: u64| {
                let big: Vec<Vec<u64>> = (0..2)
                    .map(|t| (0..2).map(|p| table[t][p] * 1_000_000).collect())
                    .collect();
                let mut big = big;
                big[cell / 2][cell % 2] += by;
                score(&big).unwrap().value
            };
            let variance: f64 = (0..4)
                .map(|cell| {
                    let slope = (scaled(cell, 1000) - scaled(cell, 0)) / 1e-3;
                    table[cell / 2][cell % 2] as f64 * slope * slope
                })
                .sum();
            let stderr = score(&table).unwrap().stderr;
            assert!((stderr - variance.sqrt()).abs() < 1e-5, "{stderr}");
        }
    }

    #[test]
    fn one_sided_tables_are_zero_and_others_undefined() {
        close(f1(&[vec![5, 0], vec![0, 0]]).unwrap(), 0.0, 0.0);
        close(matthews(&[vec![0, 5], vec![0, 7]]).unwrap(), 0.0, 0.0);
        close(matthews(&[vec![5, 0], vec![0, 7]]).unwrap(), 1.0, 0.0);
        assert_eq!(f1(&vec![vec![0; 3]; 3]), None);
        assert_eq!(matthews(&[]), None);
    }
}
