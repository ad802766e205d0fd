//! A value as bytes that do not depend on white space, escapes or the order of members.
//!
//! Two texts with the same bytes here say the same to any reader. Members are sorted by name; of a
//! name that occurs twice the last value counts, as everywhere. Numbers count by their value as 64-bit integer or double.
//! The form is never stored, only digests of it.

use simd_json::{Node, StaticNode};

use super::document::Value;

/// Writes canonical forms; keeps its memory between calls.
#[derive(Default)]
pub(crate) struct Canonical {
    /// Places of the names of the objects being written, outermost first.
    names: Vec<usize>,
}

impl Canonical {
    /// Appends the form of `value`. Recursion ends at the depth limit of the document.
    pub(crate) fn write(&mut self, value: Value<'_>, out: &mut Vec<u8>) {
        match value.node() {
            Node::Static(StaticNode::Null) => out.push(b'n'),
            Node::Static(StaticNode::Bool(false)) => out.push(b'f'),
            Node::Static(StaticNode::Bool(true)) => out.push(b't'),
            Node::Static(StaticNode::I64(number)) => integer(i128::from(number), out),
            Node::Static(StaticNode::U64(number)) => integer(i128::from(number), out),
            Node::Static(StaticNode::F64(number)) => {
                out.push(b'd');
                out.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            Node::String(text) => string(text, out),
            Node::Array { .. } => {
                out.push(b'[');
                for element in value.each() {
                    self.write(element, out);
                }
                out.push(b']');
            }
            Node::Object { .. } => self.object(value, out),
        }
    }

    fn object(&mut self, object: Value<'_>, out: &mut Vec<u8>) {
        let name = |place: &usize| match object.at(*place).node() {
            Node::String(name) => name,
            _ => "",
        };
        let mine = self.names.len();
        // A member's name stands just before its value on the tape.
        self.names.extend(object.members().map(|(_, value)| value.place() - 1));
        if let Some(names) = self.names.get_mut(mine..) {
            names.sort_unstable_by(|a, b| name(a).cmp(name(b)).then(a.cmp(b)));
        }
        out.push(b'{');
        for index in mine..self.names.len() {
            let place = self.names[index];
            if self.names.get(index + 1).is_some_and(|next| name(next) == name(&place)) {
                continue;
            }
            string(name(&place), out);
            self.write(object.at(place + 1), out);
        }
        out.push(b'}');
        self.names.truncate(mine);
    }
}

fn integer(number: i128, out: &mut Vec<u8>) {
    out.push(b'i');
    out.extend_from_slice(&number.to_le_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b's');
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
