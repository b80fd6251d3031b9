//! Which output of a container that logs non-blocking is kept when there is no room: whole lines or
//! nothing.

/// What was decided about a stretch of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'a> {
    /// Whether a line feed must go before what is kept: the line before lost its end.
    pub(super) end_line_first: bool,
    pub(super) kept: &'a [u8],
    /// Lines that were dropped, counted where they end.
    pub(super) dropped: u64,
}

/// What was kept last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Tail {
    /// A line's end, or nothing yet.
    #[default]
    Whole,
    /// The beginning of a line that goes on.
    Open,
    /// The beginning of a line whose rest was dropped.
    Torn,
}

/// Remembers, for one stream, in what kind of line it is.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    tail: Tail,
    /// Whether the line that goes on is being dropped.
    skipping: bool,
}

fn after_line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n').map(|at| at + 1)
}

impl Cutter {
    /// Decides about the next stretch, for which there is room or not.
    pub(super) fn cut<'a>(&mut self, bytes: &'a [u8], room: bool) -> Cut<'a> {
        let mut cut = Cut { end_line_first: false, kept: &[], dropped: 0 };
        let mut rest = bytes;
        if self.skipping {
            let Some(end) = after_line(rest) else { return cut };
            rest = &rest[end..];
            cut.dropped += 1;
            self.skipping = false;
        }
        if rest.is_empty() {
            return cut;
        }
        let ends = rest.ends_with(b"\n");
        if room {
            cut.end_line_first = self.tail == Tail::Torn;
            cut.kept = rest;
            self.tail = if ends { Tail::Whole } else { Tail::Open };
            return cut;
        }
        if self.tail == Tail::Open {
            // A line that was begun is finished, if its end is at hand.
            let end = after_line(rest);
            self.tail = if end.is_some() { Tail::Whole } else { Tail::Torn };
            let (kept, dropped) = rest.split_at(end.unwrap_or(0));
            (cut.kept, rest) = (kept, dropped);
        }
        cut.dropped += rest.iter().filter(|b| **b == b'\n').count() as u64;
        self.skipping = !rest.is_empty() && !ends;
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.cut(b"one\ntw", true).kept, b"one\ntw");
        assert_eq!(cutter.cut(b"o-o", false), Cut { end_line_first: false, kept: b"", dropped: 0 });
        assert_eq!(
            cutter.cut(b"-o\nthree\n", true),
            Cut { end_line_first: true, kept: b"three\n", dropped: 1 }
        );
        assert_eq!(cutter.cut(b"fo", true).kept, b"fo");
        assert_eq!(
            cutter.cut(b"ur\nfive\nsi", false),
            Cut { end_line_first: false, kept: b"ur\n", dropped: 1 }
        );
        assert_eq!(
            cutter.cut(b"x\nseven\n", true),
            Cut { end_line_first: false, kept: b"seven\n", dropped: 1 }
        );
    }

    proptest! {
        /// However the output is cut into stretches: what is kept are lines of it, in order, of
        /// which only a torn one is not whole, and every line is either kept or counted.
        #[test]
        fn lines_are_kept_or_counted(
            sizes in proptest::collection::vec((1usize..40, any::<bool>()), 1..60),
        ) {
            let text: String = (0..200).map(|i| format!("<{i}>\n")).collect();
            let (mut cutter, mut kept, mut dropped, mut at) = (Cutter::default(), Vec::new(), 0, 0);
            for (size, room) in sizes {
                let end = (at + size).min(text.len());
                let cut = cutter.cut(&text.as_bytes()[at..end], room);
                kept.extend(cut.end_line_first.then_some(b'\n'));
                kept.extend_from_slice(cut.kept);
                dropped += cut.dropped;
                at = end;
            }
            let cut = cutter.cut(&text.as_bytes()[at..], true);
            kept.extend(cut.end_line_first.then_some(b'\n'));
            kept.extend_from_slice(cut.kept);
            dropped += cut.dropped;
            let kept = String::from_utf8(kept).unwrap();
            let whole = |l: &&str| l.starts_with('<') && l.ends_with('>');
            prop_assert_eq!(kept.lines().filter(whole).count() as u64 + dropped, 200);
            prop_assert!(kept.lines().all(|l| text.contains(l) && l.starts_with('<')));
        }
    }
}
