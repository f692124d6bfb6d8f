//! Whether what two templates render may be one place.

use super::{Piece, Template, sample};

/// How the deliveries of two exports may lie to one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// In no place of the one is anything of the other.
    Apart,
    /// Those of the first may be below those of the second.
    Below,
    /// Those of the second may be below those of the first.
    Above,
    /// They may be in one place.
    Same,
}

/// A segment of a path: its characters, `None` for any number of any.
type Segment = Vec<Option<char>>;

impl Template {
    /// How the deliveries of one export by this template may lie to those of another by `other`.
    /// What fills a placeholder may be anything, but stays within its segment; runs and exports
    /// never have one name.
    pub fn meets(&self, export: &str, other: &Template, other_export: &str) -> Meeting {
        for apart in [Piece::Run, Piece::Export] {
            if self.pieces.contains(&apart) && other.pieces.contains(&apart) {
                return Meeting::Apart;
            }
        }
        let (ours, theirs) = (self.segments(export), other.segments(other_export));
        if !ours.iter().zip(&theirs).all(|(one, two)| overlap(one, two)) {
            return Meeting::Apart;
        }
        match ours.len().cmp(&theirs.len()) {
            std::cmp::Ordering::Less => Meeting::Above,
            std::cmp::Ordering::Equal => Meeting::Same,
            std::cmp::Ordering::Greater => Meeting::Below,
        }
    }

    fn segments(&self, export: &str) -> Vec<Segment> {
        let mut segments = vec![Segment::new()];
        for piece in &self.pieces {
            let mut parts: Vec<Segment> = match piece {
                Piece::Literal(text) => text.split('/').map(literal).collect(),
                Piece::Export => vec![literal(export)],
                // The time may be of several segments itself.
                Piece::Start(format) | Piece::End(format) => {
                    let shown = sample(format).unwrap_or_default();
                    shown.split('/').map(|_| vec![None]).collect()
                }
                Piece::Run | Piece::Value(_) => vec![vec![None]],
            };
            let more = parts.split_off(1);
            if let (Some(last), Some(first)) = (segments.last_mut(), parts.first()) {
                last.extend(first);
            }
            segments.extend(more);
        }
        segments
    }
}

fn literal(text: &str) -> Segment {
    text.chars().map(Some).collect()
}

/// Whether there is a text that both segments may be.
fn overlap(one: &[Option<char>], two: &[Option<char>]) -> bool {
    // For each rest of `two`, whether it overlaps the rest of `one` from `at` on, and behind `at`.
    let mut behind = vec![false; two.len() + 2];
    for at in (0..=one.len()).rev() {
        let mut rests = vec![false; two.len() + 2];
        for place in (0..=two.len()).rev() {
            rests[place] = match (one.get(at), two.get(place)) {
                (None, None) => true,
                // Anything is nothing, or what comes next and anything again.
                (Some(None), _) | (_, Some(None)) => rests[place + 1] || behind[place],
                (Some(Some(one)), Some(Some(two))) => one == two && behind[place + 1],
                _ => false,
            };
        }
        behind = rests;
    }
    behind[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How the path of the export `a` and that of `b` lie to one another.
    fn meet(one: &str, two: &str) -> Meeting {
        let read = |text| Template::read(text, &["c", "d"]).0;
        let (one, two) = (read(one), read(two));
        let found = one.meets("a", &two, "b");
        let turned = match two.meets("b", &one, "a") {
            Meeting::Below => Meeting::Above,
            Meeting::Above => Meeting::Below,
            other => other,
        };
        assert_eq!(found, turned);
        found
    }

    #[test]
    fn templates_meet_where_one_text_may_be_both() {
        for (one, two, expected) in [
            ("orders", "orders", Meeting::Same),
            ("orders", "order", Meeting::Apart),
            ("orders/{c}", "orders/{d}", Meeting::Same),
            ("orders/{c}", "orders/all", Meeting::Same),
            ("orders/{c}", "orders/all/{d}", Meeting::Above),
            ("orders", "orders/day={window_start:%F}", Meeting::Above),
            ("orders/day={window_start:%F}", "orders/month={window_start:%Y-%m}", Meeting::Apart),
            ("{window_start:%Y/%m}", "{c}/{d}", Meeting::Same),
            ("{window_start:%Y/%m}/x", "{c}/{d}", Meeting::Below),
            ("x{c}y", "xy", Meeting::Same),
            ("x{c}y", "x", Meeting::Apart),
            ("{c}-no", "se-{d}", Meeting::Same),
            ("{c}-no", "{d}-se", Meeting::Apart),
            ("{c}{d}{c}{d}z", "{c}{d}{c}{d}y", Meeting::Apart),
            ("{export}", "{export}", Meeting::Apart),
            ("{export}", "a", Meeting::Same),
            ("{export}", "b", Meeting::Apart),
            ("{export}/x", "b/x", Meeting::Apart),
            ("all/{run}", "all/{run}", Meeting::Apart),
            ("all/{run}", "all/x", Meeting::Same),
        ] {
            assert_eq!(meet(one, two), expected, "{one} {two}");
        }
    }

    proptest! {
        #[test]
        fn what_renders_alike_meets(
            one in prop::collection::vec(prop_oneof![Just("{c}"), Just("x"), Just("y")], 1..6),
            two in prop::collection::vec(prop_oneof![Just("{d}"), Just("x"), Just("y")], 1..6),
            c in "[xy]{0,3}", d in "[xy]{0,3}",
        ) {
            let (one, two) = (one.concat(), two.concat());
            if one.replace("{c}", &c) == two.replace("{d}", &d) {
                prop_assert_eq!(meet(&one, &two), Meeting::Same);
            }
        }
    }
}
