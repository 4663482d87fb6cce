//! A column of numbers that mostly lie close together: four bytes each, eight from the first one that lies too far from the others.

/// Room below the first number: dates 68 years apart still fit.
const BELOW: u64 = 1 << 31;

/// See the module.
#[derive(Debug)]
pub(super) enum Numbers {
    Near { base: u64, offsets: Vec<u32> },
    Far(Vec<u64>),
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers::Near { base: 0, offsets: Vec::new() }
    }
}

impl Numbers {
    pub fn get(&self, position: usize) -> u64 {
        match self {
            Numbers::Near { base, offsets } => base + u64::from(offsets[position]),
            Numbers::Far(numbers) => numbers[position],
        }
    }
    pub fn reserve(&mut self, more: usize) {
        match self {
            Numbers::Near { offsets, .. } => offsets.reserve_exact(more),
            Numbers::Far(numbers) => numbers.reserve_exact(more),
        }
    }
    pub fn push(&mut self, number: u64) {
        if let Numbers::Near { base, offsets } = self {
            if offsets.is_empty() {
                *base = number.saturating_sub(BELOW);
            }
            if let Some(offset) = offset(*base, number) {
                push(offsets, offset);
                return;
            }
        }
        push(self.far(), number);
    }
    pub fn set(&mut self, position: usize, number: u64) {
        if let Numbers::Near { base, offsets } = self
            && let Some(offset) = offset(*base, number)
        {
            offsets[position] = offset;
            return;
        }
        self.far()[position] = number;
    }
    /// Keeps those of which `keep` is true.
    pub fn retain(&mut self, keep: &[bool]) {
        match self {
            Numbers::Near { offsets, .. } => retain(offsets, keep),
            Numbers::Far(numbers) => retain(numbers, keep),
        }
    }
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Numbers::Near { offsets, .. } => offsets.capacity() * 4,
            Numbers::Far(numbers) => numbers.capacity() * 8,
        }
    }
    fn far(&mut self) -> &mut Vec<u64> {
        if let Numbers::Near { base, offsets } = self {
            *self = Numbers::Far(offsets.iter().map(|offset| *base + u64::from(*offset)).collect());
        }
        match self {
            Numbers::Far(numbers) => numbers,
            Numbers::Near { .. } => unreachable!("made far just above"),
        }
    }
}

fn offset(base: u64, number: u64) -> Option<u32> {
    number.checked_sub(base).and_then(|offset| u32::try_from(offset).ok())
}

/// Grows by an eighth, so that little is left unused.
pub(super) fn push<T>(column: &mut Vec<T>, value: T) {
    if column.len() == column.capacity() {
        column.reserve_exact(column.len() / 8 + 16);
    }
    column.push(value);
}

/// Keeps those of which `keep` is true, and gives memory back.
pub(super) fn retain<T>(column: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    column.retain(|_| keep.next().copied().unwrap_or(true));
    if column.capacity() / 2 > column.len() {
        column.shrink_to_fit();
    }
}

/// A signed number in a column: the order stays.
pub(super) fn unsigned(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}
/// What [`unsigned`] was made of.
pub(super) fn signed(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![8 => 1_763_000_000_u64..1_764_000_000, 1 => any::<u64>()]
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(mut numbers in prop::collection::vec(number(), 1..40), changes in prop::collection::vec((any::<prop::sample::Index>(), number()), 0..20),
                                 keep in prop::collection::vec(any::<bool>(), 40)) {
            let mut column = Numbers::default();
            numbers.iter().for_each(|number| column.push(*number));
            for (at, number) in changes {
                let at = at.index(numbers.len());
                numbers[at] = number;
                column.set(at, number);
            }
            column.retain(&keep);
            let mut keep = keep.iter();
            numbers.retain(|_| *keep.next().unwrap());
            prop_assert_eq!((0..numbers.len()).map(|at| column.get(at)).collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn signs_are_read_back() {
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(signed(unsigned(number)), number);
        }
        assert!(unsigned(-1) < unsigned(0));
    }
}
