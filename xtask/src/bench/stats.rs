//! The few numbers that a series of measurements comes down to.

/// Middle of a series, and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    /// A quarter of the values is below.
    pub(super) low: f64,
    /// A quarter of the values is above.
    pub(super) high: f64,
}

impl Spread {
    /// Of at least one value; values that are no numbers are left out.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        // `quarters` of the way from the least to the greatest, between two values where it falls so.
        let at = |quarters: usize| {
            let way = quarters * sorted.len().checked_sub(1)?;
            let (below, rest) = (way / 4, (way % 4) as f64 / 4.0);
            let value = *sorted.get(below)?;
            let next = sorted.get(below + 1).copied().unwrap_or(value);
            Some(value + (next - value) * rest)
        };
        Some(Self {
            median: at(2)?,
            low: at(1)?,
            high: at(3)?,
        })
    }
}

/// The order in which `count` things are measured in a round: each round begins with the next one, so
/// that none always comes first or always after the same.
pub(super) fn rotation(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

/// A whole number with its digits in groups of three.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 && digits != "0" {
        text.insert(0, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_may_fall_between_values() {
        let spread = |low, median, high| Some(Spread { median, low, high });
        assert_eq!(Spread::of(&[3.0, 1.0, 9.0]), spread(2.0, 3.0, 6.0));
        let five = [50.0, 10.0, 30.0, 20.0, 40.0];
        assert_eq!(Spread::of(&five), spread(20.0, 30.0, 40.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 8.0]), spread(1.75, 3.0, 5.0));
        assert_eq!(Spread::of(&[2.0]), spread(2.0, 2.0, 2.0));
        let odd = [1.0, f64::NAN, f64::INFINITY];
        assert_eq!(Spread::of(&odd), spread(1.0, 1.0, 1.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn each_round_begins_with_the_next() {
        let order = |round| rotation(3, round).collect::<Vec<_>>();
        assert_eq!(order(0), [0, 1, 2]);
        assert_eq!(order(1), [1, 2, 0]);
        assert_eq!(order(5), [2, 0, 1]);
    }

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.5), "1 000");
        assert_eq!(grouped(1_234_567.2), "1 234 567");
        assert_eq!(grouped(-1234.0), "-1 234");
        assert_eq!(grouped(-0.2), "0");
    }
}
