//! Prefixes compiled into a flat trie: a phone's digits walk it, and where they stop is the answer.
//!
//! A node is 12 bytes: which digits go on, where their nodes begin, and what is decided for a phone
//! that gets no further. Children stand side by side, so a step is one bit count and one load, and
//! 100,000 prefixes stay within the second and third level of cache. Decisions are inherited while
//! compiling: nothing is remembered or compared while walking. No allocation, no lock, no recursion.

use std::collections::{BTreeMap, VecDeque};

use super::countries;
use crate::parse::phone::{DIGITS_MAX, lookup_prefix};

/// What is known about a prefix before compiling.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    /// Region that lists this very prefix.
    explicit: Option<u16>,
    /// Row of the calling-code table with this prefix.
    row: Option<u16>,
}

/// What decided a phone's region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// A region's own prefix, of this many digits.
    Prefix { length: u8 },
    /// The country of this row of the calling-code table.
    Row(u16),
}

/// The longest prefix and the longest row on the way to a node.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    explicit: Option<(u16, u8)>,
    row: Option<(u16, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    /// Index of the node of the lowest digit in `digits`; the others follow in order.
    children: u32,
    /// Bit d is set if the walk goes on with digit d.
    digits: u16,
    /// Region of a phone that ends here; [`NOWHERE`] if no rule claims it.
    region: u16,
    /// Row that decided; [`NO_ROW`] if a prefix did.
    row: u16,
    /// Length of the prefix that decided.
    length: u8,
}

/// No region: one more than any index of a region (the configuration holds fewer).
const NOWHERE: u16 = u16::MAX;
const NO_ROW: u16 = u16::MAX;

/// Regions that a trie can tell apart.
pub(super) const REGIONS_MAX: usize = NOWHERE as usize;

/// How many bits are set in a set of ten digits. Processors that all x86-64 builds may assume have no
/// instruction for it, and a load from this kilobyte is quicker than counting by hand.
static COUNT: [u8; 1024] = {
    let mut counts = [0; 1024];
    let mut set = 0;
    while set < 1024 {
        counts[set] = (set as u16).count_ones() as u8;
        set += 1;
    }
    counts
};

#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Where the first four digits of a phone lead (its node, and how many of them were walked): one
    /// load in place of four that wait for each other.
    starts: Vec<(u32, u8)>,
}

/// Digits that [`Trie::starts`] takes at once.
const START: usize = 4;

impl Trie {
    /// Compiles the regions' prefixes over the calling-code table. `country` tells which region
    /// lists a country. Where two regions give one prefix, the first has it.
    pub(super) fn new<'a>(
        prefixes: impl Iterator<Item = (&'a str, u16)>,
        country: impl Fn(&str) -> Option<u16>,
    ) -> Self {
        let mut marks: BTreeMap<String, Mark> = BTreeMap::new();
        for (index, row) in (0..).zip(countries::rows()) {
            marks.entry(row.prefix.to_owned()).or_default().row = Some(index);
        }
        let is_prefix =
            |text: &str| text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
        for (prefix, region) in prefixes.filter(|(prefix, _)| is_prefix(prefix)) {
            marks.entry(lookup_prefix(prefix)).or_default().explicit.get_or_insert(region);
        }
        let marks: Vec<(&[u8], Mark)> =
            marks.iter().map(|(prefix, mark)| (prefix.as_bytes(), *mark)).collect();
        let nodes = compile(&marks, country);
        let starts = (0..10u16.pow(START as u32))
            .map(|number| walk(&nodes, 0, [1000, 100, 10, 1].map(|place| number / place % 10)))
            .collect();
        Self { nodes, starts }
    }

    /// The region of a phone (bare digits) and what decided it.
    #[inline]
    pub(super) fn find(&self, phone: &[u8]) -> Option<(u16, Match)> {
        let digit = |byte: &u8| u16::from(byte.wrapping_sub(b'0'));
        let at = match phone.split_at_checked(START) {
            Some((start, rest)) => {
                let number = start.iter().fold(0, |number, byte| number * 10 + usize::from(digit(byte)));
                match *self.starts.get(number)? {
                    (at, walked) if usize::from(walked) == START => {
                        walk(&self.nodes, at, rest.iter().map(digit)).0
                    }
                    (at, _) => at,
                }
            }
            None => walk(&self.nodes, 0, phone.iter().map(digit)).0,
        };
        let node = &self.nodes[at as usize];
        let decided = match node.row {
            NO_ROW => Match::Prefix { length: node.length },
            row => Match::Row(row),
        };
        (node.region != NOWHERE).then_some((node.region, decided))
    }
}

/// The node that `digits` lead to from the node `at`, and how many of them led on.
#[inline]
fn walk(nodes: &[Node], mut at: u32, digits: impl IntoIterator<Item = u16>) -> (u32, u8) {
    let mut walked = 0;
    for digit in digits {
        let node = &nodes[at as usize];
        if digit > 9 || node.digits & (1 << digit) == 0 {
            break;
        }
        at = node.children + u32::from(COUNT[usize::from(node.digits & ((1 << digit) - 1))]);
        walked += 1;
    }
    (at, walked)
}

/// Lays the nodes out level by level, so that the children of a node are neighbours. `marks` is
/// sorted; a node is a range of it that shares its first `depth` digits.
fn compile(marks: &[(&[u8], Mark)], country: impl Fn(&str) -> Option<u16>) -> Vec<Node> {
    let mut nodes = vec![Node { children: 0, digits: 0, region: NOWHERE, row: NO_ROW, length: 0 }];
    let mut waiting = VecDeque::from([(0, marks, 0u8, Met::default())]);
    while let Some((at, mut marks, depth, mut met)) = waiting.pop_front() {
        if let Some((prefix, mark)) = marks.first()
            && prefix.len() == usize::from(depth)
        {
            met.explicit = mark.explicit.map(|region| (region, depth)).or(met.explicit);
            met.row = mark.row.map(|row| (row, depth)).or(met.row);
            marks = &marks[1..];
        }
        let children = nodes.len();
        let mut digits = 0;
        for same in marks.chunk_by(|a, b| a.0[usize::from(depth)] == b.0[usize::from(depth)]) {
            digits |= 1 << (same[0].0[usize::from(depth)] - b'0');
            waiting.push_back((nodes.len(), same, depth + 1, met));
            nodes.push(nodes[0]);
        }
        // 15 digits of a few hundred thousand prefixes: far below four thousand million nodes.
        nodes[at] = decide(met, &country, children as u32, digits);
    }
    nodes
}

/// The longest match wins, a tie goes to the explicit prefix, and a country that no region lists
/// matches nothing: its phones never fall back to a shorter row.
fn decide(met: Met, country: impl Fn(&str) -> Option<u16>, children: u32, digits: u16) -> Node {
    let listed = met.row.and_then(|(row, length)| {
        let region = country(countries::rows()[usize::from(row)].country)?;
        Some((region, row, length))
    });
    let (region, row, length) = match (met.explicit, listed) {
        (Some((_, explicit)), Some((region, row, length))) if explicit < length => (region, row, length),
        (Some((region, length)), _) => (region, NO_ROW, length),
        (None, Some((region, row, length))) => (region, row, length),
        (None, None) => (NOWHERE, NO_ROW, 0),
    };
    Node { children, digits, region, row, length }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_stays_small_enough_for_the_cache() {
        assert_eq!(size_of::<Node>(), 12);
    }

    #[test]
    fn walk_ends_at_the_longest_prefix() {
        let trie = Trie::new([("44", 0), ("4477", 1), ("447700900123", 2)].into_iter(), |_| None);
        let check = |phone: &str, expected| assert_eq!(trie.find(phone.as_bytes()), expected, "{phone}");
        let prefix = |region, length| Some((region, Match::Prefix { length }));
        check("442071838750", prefix(0, 2));
        check("447812345678", prefix(0, 2));
        check("447701234567", prefix(1, 4));
        check("447700900123", prefix(2, 12));
        check("4477009001234", prefix(2, 12));
        check("4477", prefix(1, 4));
        check("4", None);
        check("", None);
        check("not a phone", None);
    }
}
