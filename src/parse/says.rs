//! What an event says, as 64 bits: the same for every text of the same JSON value, whatever its white
//! space, escapes and order of members.
//!
//! Two events are only compared if they have the same key, so this need not be a digest against
//! collisions that somebody looks for; it must be fast, since every event pays for it. Members are
//! added up, so their order does not count and nothing is sorted; of a name that occurs twice the last
//! value counts, and numbers count by their value, both as in `canonical`.
//! The numbers are written to the journal and the key log: their definition must never change.

use simd_json::{Node, StaticNode};

use super::document::Value;

/// Odd numbers without a pattern. No byte of [`TEXT`] can stand in UTF-8, so that no text makes a
/// factor zero.
const TEXT: u64 = 0xfff7_fdfb_fff5_f9ff;
const NUMBER: u64 = 0x8bb8_4b93_962e_acc9;
const DOUBLE: u64 = 0x4b33_a62e_d433_d4a3;
const PLAIN: u64 = 0xa076_1d64_78bd_642f;
const LIST: u64 = 0xe703_7ed1_a0b4_28db;
const OBJECT: u64 = 0x8ebc_6af0_9c88_c6e3;
const MEMBER: u64 = 0x5899_65cc_7537_4cc3;

/// An object with more members is sorted by name to find those that occur twice.
const FEW: usize = 48;
/// Above this the memory is given back.
const KEEP: usize = 1 << 16;

/// One member: its name and what it adds.
#[derive(Clone, Copy)]
struct Member {
    name: u64,
    adds: u64,
}

/// Finds out what values say; keeps its memory between calls.
#[derive(Default)]
pub(crate) struct Says {
    /// Members of the objects being read, outermost first.
    members: Vec<Member>,
}

impl Says {
    pub(crate) fn of(&mut self, value: Value<'_>) -> u64 {
        let says = self.any(value);
        if self.members.capacity() > KEEP {
            self.members = Vec::new();
        }
        says
    }

    /// Recursion ends at the depth limit of the document.
    fn any(&mut self, value: Value<'_>) -> u64 {
        match value.node() {
            Node::String(text) => string(text),
            Node::Static(StaticNode::U64(number)) => mix(number ^ NUMBER, PLAIN),
            Node::Static(StaticNode::I64(number)) if number >= 0 => mix(number as u64 ^ NUMBER, PLAIN),
            Node::Static(StaticNode::I64(number)) => mix(number as u64 ^ NUMBER, LIST),
            Node::Static(StaticNode::F64(number)) => mix(number.to_bits() ^ DOUBLE, PLAIN),
            Node::Static(StaticNode::Null) => PLAIN,
            Node::Static(StaticNode::Bool(yes)) => PLAIN ^ (1 + u64::from(yes)),
            Node::Array { len, .. } => {
                let says =
                    value.each().fold(LIST, |before, element| mix(before ^ self.any(element), LIST) ^ before);
                mix(says ^ len as u64, OBJECT)
            }
            Node::Object { len, .. } => self.object(value, len),
        }
    }

    fn object(&mut self, object: Value<'_>, len: usize) -> u64 {
        let mine = self.members.len();
        // A bit for each name so far: most names need no search.
        let mut met = 0u64;
        let mut sum = 0u64;
        for (name, value) in object.members() {
            let name = string(name);
            let adds = mix(name ^ MEMBER, self.any(value) ^ OBJECT);
            let bit = 1 << (name & 63);
            if len <= FEW && met & bit != 0 {
                let again = self.members.get_mut(mine..).and_then(|m| m.iter_mut().find(|m| m.name == name));
                if let Some(earlier) = again {
                    sum = sum.wrapping_sub(earlier.adds).wrapping_add(adds);
                    earlier.adds = adds;
                    continue;
                }
            }
            met |= bit;
            sum = sum.wrapping_add(adds);
            self.members.push(Member { name, adds });
        }
        if len > FEW {
            sum = last_of_each(self.members.get_mut(mine..).unwrap_or_default());
        }
        self.members.truncate(mine);
        mix(sum ^ OBJECT, MEMBER)
    }
}

/// The sum of members, each name once.
fn last_of_each(members: &mut [Member]) -> u64 {
    // Stable: of equal names the last stays the last.
    members.sort_by_key(|member| member.name);
    let mut sum = 0u64;
    for (at, member) in members.iter().enumerate() {
        if members.get(at + 1).is_none_or(|next| next.name != member.name) {
            sum = sum.wrapping_add(member.adds);
        }
    }
    sum
}

/// The 128-bit product, folded: every bit of the result depends on all bits of both.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn string(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut state = mix(bytes.len() as u64 ^ DOUBLE, TEXT);
    let (mut rest, word) = (bytes, |bytes: &[u8; 8]| u64::from_le_bytes(*bytes));
    while rest.len() > 16
        && let Some((pair, after)) = rest.split_first_chunk::<16>()
        && let (Some(one), Some(two)) = (pair.first_chunk::<8>(), pair.last_chunk::<8>())
    {
        state = mix(word(one) ^ TEXT, word(two) ^ state);
        rest = after;
    }
    // The last 1 to 16 bytes, in two words that may overlap.
    let (one, two) = match (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
        (Some(one), Some(two)) => (word(one), word(two)),
        _ => match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
            (Some(one), Some(two)) => {
                (u64::from(u32::from_le_bytes(*one)), u64::from(u32::from_le_bytes(*two)))
            }
            _ => (rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        },
    };
    mix(mix(one ^ TEXT, two ^ state) ^ NUMBER, PLAIN)
}
