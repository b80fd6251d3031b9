//! What is kept of many values: enough for the usual statistics, and an approximate distribution for percentiles.

/// The most different values that a distribution tells apart.
const MOST_VALUES: usize = 160;
/// How much neighbouring values differ, as a logarithm, when a distribution first becomes too long: one part in a
/// hundred.
const FINEST: f64 = 0.01;

/// A summary of values measured in a stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many values there were.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The values, ascending, each with how often it came; near ones as one when there are many. None when only the
    /// above was told.
    values: Option<Vec<(f64, f64)>>,
}

impl Summary {
    /// Of values, each with how often it came. None when there are none.
    pub fn of_values(values: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().filter(|(_, count)| *count > 0.0).collect();
        let (first, _) = *values.first()?;
        let mut made = Self { count: 0.0, sum: 0.0, min: first, max: first, values: None };
        for (value, count) in &values {
            made.count += count;
            made.sum += value * count;
            made.min = made.min.min(*value);
            made.max = made.max.max(*value);
        }
        shorten(&mut values);
        made.values = Some(values);
        Some(made)
    }

    /// Of values of which only this is known. Percentiles are only known when it leaves but one way.
    pub fn of_set(count: f64, sum: f64, min: f64, max: f64) -> Self {
        let only = min == max || count == 1.0;
        Self { count, sum, min, max, values: only.then(|| vec![(min, count)]) }
    }

    /// Becomes a summary of both.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.values = match (self.values.take(), &other.values) {
            (Some(mut values), Some(more)) => {
                values.extend(more);
                shorten(&mut values);
                Some(values)
            }
            _ => None,
        };
    }

    /// The average.
    pub fn average(&self) -> f64 {
        self.sum / self.count
    }

    /// The value that `percent` of the values do not exceed; none when the distribution is not known.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let rank = percent / 100.0 * self.count;
        let mut below = 0.0;
        for (value, count) in self.values.as_ref()? {
            below += count;
            if below >= rank {
                // What was put together with its neighbours may lie outside of what there was.
                return Some(value.clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let values = self.values.as_deref();
        let mut bytes = Vec::with_capacity(33 + values.map_or(0, |values| values.len() * 16));
        let head = [self.count, self.sum, self.min, self.max];
        bytes.extend(head.into_iter().flat_map(f64::to_le_bytes));
        bytes.push(u8::from(values.is_some()));
        for (value, count) in values.unwrap_or_default() {
            bytes.extend(value.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes
    }

    /// None when `bytes` are not what [`Summary::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(32)?;
        let (known, rest) = rest.split_first()?;
        let number = |bytes: &[u8]| bytes.try_into().map(f64::from_le_bytes).ok();
        let numbers = |bytes: &[u8]| bytes.chunks(8).map(number).collect::<Option<Vec<_>>>();
        let [count, sum, min, max] = numbers(head)?.try_into().ok()?;
        let pairs = numbers(rest)?;
        let values = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Some(Self { count, sum, min, max, values: (*known == 1).then_some(values) })
    }
}

/// Sorts values and puts the same together; near ones too, as far as there are too many.
fn shorten(values: &mut Vec<(f64, f64)>) {
    let mut width = FINEST;
    loop {
        values.sort_by(|one, other| one.0.total_cmp(&other.0));
        values.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0.0 };
            same
        });
        if values.len() <= MOST_VALUES {
            return;
        }
        for (value, _) in values.iter_mut() {
            *value = rounded(*value, width);
        }
        width *= 2.0;
    }
}

/// The value of its stretch of the logarithmic scale.
fn rounded(value: f64, width: f64) -> f64 {
    match value == 0.0 {
        true => 0.0,
        false => value.signum() * ((value.abs().ln() / width).round() * width).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_of_few_values_are_exact() {
        let summary = Summary::of_values((1..=100).map(|n| (f64::from(n), 1.0))).unwrap();
        assert_eq!(
            [50.0, 90.0, 99.0, 100.0].map(|p| summary.percentile(p)),
            [50.0, 90.0, 99.0, 100.0].map(Some)
        );
        assert_eq!((summary.count, summary.sum, summary.average()), (100.0, 5050.0, 50.5));
    }

    #[test]
    fn a_set_has_no_percentiles_unless_they_are_certain() {
        assert_eq!(Summary::of_set(3.0, 6.0, 1.0, 3.0).percentile(50.0), None);
        assert_eq!(Summary::of_set(3.0, 6.0, 2.0, 2.0).percentile(50.0), Some(2.0));
        let mut both = Summary::of_set(3.0, 6.0, 1.0, 3.0);
        both.merge(&Summary::of_values([(2.0, 1.0)]).unwrap());
        assert_eq!((both.percentile(50.0), both.count, both.sum), (None, 4.0, 8.0));
    }

    proptest! {
        #[test]
        fn merged_in_any_order_the_figures_are_the_same_and_percentiles_near(
            values in prop::collection::vec((1e-3..1e6_f64, 1..4_u8), 1..600), at in 1.0..100.0_f64
        ) {
            let all = values.iter().map(|(value, count)| (*value, f64::from(*count)));
            let whole = Summary::of_values(all.clone()).unwrap();
            let mut merged: Option<Summary> = None;
            for one in all.clone() {
                let one = Summary::of_values([one]).unwrap();
                match &mut merged {
                    Some(merged) => merged.merge(&one),
                    None => merged = Some(one),
                }
            }
            let merged = merged.unwrap();
            prop_assert_eq!((merged.count, merged.min, merged.max), (whole.count, whole.min, whole.max));
            prop_assert!((merged.sum - whole.sum).abs() <= 1e-9 * whole.sum);
            let mut sorted: Vec<f64> = all.flat_map(|(value, count)| vec![value; count as usize]).collect();
            sorted.sort_by(f64::total_cmp);
            let exact = sorted[((at / 100.0 * whole.count).ceil() as usize).max(1) - 1];
            for summary in [&whole, &merged] {
                let near = summary.percentile(at).unwrap();
                // Values between 0.001 and a million need stretches of an eighth to be at most 160.
                prop_assert!((near / exact).ln().abs() <= 0.35, "{} for {}", near, exact);
                let read = Summary::decode(&summary.encode());
                prop_assert_eq!(read.as_ref(), Some(summary));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Summary::decode(&bytes);
        }
    }
}
