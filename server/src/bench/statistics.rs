//! Of many runs, one number.

/// The median; of an even number, the mean of the two in the middle. 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (sorted.get(half.wrapping_sub(1)).unwrap_or(upper) + upper) / 2.0,
    }
}

/// The smallest. 0 of nothing.
pub(super) fn least(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!([median(&[]), median(&[3.0]), median(&[9.0, 1.0, 4.0]), median(&[4.0, 1.0])], [0.0, 3.0, 4.0, 2.5]);
        assert_eq!([least(&[]), least(&[2.0, 1.0])], [0.0, 1.0]);
    }
}
