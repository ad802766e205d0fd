//! A body as a tape of values, and where each of them lies in the raw bytes.
//!
//! simd-json rewrites what it parses, so it gets a copy: the raw bytes belong to the signature and
//! the archive. Copy, indexes and tape are reused; a body of ordinary size costs no allocation.
//!
//! Invariants: a tape exists only of valid JSON no deeper than [`DEPTH_MAX`]; every value's byte
//! range is its exact text in the raw body. A member that occurs twice counts by its last
//! occurrence, everywhere, as in nearly every back end's reader.
//! Deliberately absent: numbers beyond 64 bits. The parser refuses them, and a lossy reading could
//! make two different events one.

use std::ops::Range;

use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, StaticNode, Tape, fill_tape_padded};

use super::Opaque;

/// Containers inside containers. Meta's deepest known shape has 14; the rest is room.
pub(crate) const DEPTH_MAX: usize = 64;

/// Above this the buffers are given back after the body: a core holds one set for ever, and
/// a body of 3 MB needs about 25 MB.
const KEEP_BYTES: usize = 8 << 20;

/// The reusable memory of one reader.
pub(crate) struct Scratch {
    copy: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { copy: Vec::new(), buffers: Buffers::with_max_depth(0, DEPTH_MAX), tape: Tape(Vec::new()) }
    }
}

impl Scratch {
    /// Reads `raw` and hands the document to `then`, which cannot keep any of it.
    pub(crate) fn read<R>(
        &mut self,
        raw: &[u8],
        then: impl for<'t> FnOnce(Document<'t>) -> R,
    ) -> Result<R, Opaque> {
        self.copy.clear();
        self.copy.reserve(raw.len() + INPUT_PADDING);
        self.copy.extend_from_slice(raw);
        self.copy.resize(raw.len() + INPUT_PADDING, 0);

        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = fill_tape_padded(&mut self.copy, raw.len(), &mut self.buffers, &mut tape);
        let answer = match filled {
            Ok(()) => {
                let structurals = self.buffers.structural_indexes();
                Ok(then(Document { raw, nodes: &tape.0, structurals }))
            }
            Err(error) if matches!(error.error(), ErrorType::DepthLimitExceeded) => Err(Opaque::TooDeep),
            Err(_) => Err(Opaque::NotJson),
        };
        self.tape = tape.reset();
        if self.copy.capacity() + self.tape.0.capacity() * size_of::<Node<'_>>() > KEEP_BYTES {
            *self = Self::default();
        }
        answer
    }
}

/// A body that is valid JSON.
#[derive(Clone, Copy)]
pub(crate) struct Document<'t> {
    pub(crate) raw: &'t [u8],
    nodes: &'t [Node<'t>],
    /// Offset of every `{ } [ ] : ,`, of every opening quote, and of the first byte of every other scalar.
    structurals: &'t [u32],
}

impl<'t> Document<'t> {
    pub(crate) fn root(&self) -> Value<'t> {
        Value { nodes: self.nodes, at: 0 }
    }

    /// How many values and names there are: no more events than this.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn spans(&self) -> Spans<'t> {
        Spans { raw: self.raw, structurals: self.structurals, at: 0, node: 0 }
    }
}

/// A value on the tape.
#[derive(Clone, Copy)]
pub(crate) struct Value<'t> {
    nodes: &'t [Node<'t>],
    at: usize,
}

impl<'t> Value<'t> {
    /// Place on the tape: grows in the order of the document.
    pub(crate) fn place(&self) -> usize {
        self.at
    }

    pub(crate) fn node(&self) -> Node<'t> {
        self.nodes.get(self.at).copied().unwrap_or(Node::Static(StaticNode::Null))
    }

    /// Another value of the same tape.
    pub(crate) fn at(&self, place: usize) -> Value<'t> {
        Value { nodes: self.nodes, at: place }
    }

    /// Place of what follows this value and all that is in it.
    pub(crate) fn after(&self) -> usize {
        match self.node() {
            Node::Object { count, .. } | Node::Array { count, .. } => self.at + 1 + count,
            _ => self.at + 1,
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.node(), Node::Object { .. })
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node(), Node::Static(StaticNode::Null))
    }

    /// The text of a string that is not empty: Meta used to send `""` for what it now leaves out.
    pub(crate) fn text(&self) -> Option<&'t str> {
        match self.node() {
            Node::String(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        matches!(self.node(), Node::Static(StaticNode::Bool(true)))
    }

    /// Members of an object; none of anything else.
    pub(crate) fn members(&self) -> Members<'t> {
        let left = match self.node() {
            Node::Object { len, .. } => len,
            _ => 0,
        };
        Members { next: Value { nodes: self.nodes, at: self.at + 1 }, left }
    }

    /// Elements of an array, nothing of a null, and anything else itself: a list of one.
    pub(crate) fn each(&self) -> Elements<'t> {
        match self.node() {
            Node::Array { len, .. } => {
                Elements { next: Value { nodes: self.nodes, at: self.at + 1 }, left: len }
            }
            Node::Static(StaticNode::Null) => Elements { next: *self, left: 0 },
            _ => Elements { next: *self, left: 1 },
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value<'t>> {
        self.members().filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    pub(crate) fn text_of(&self, name: &str) -> Option<&'t str> {
        self.get(name).and_then(|value| value.text())
    }
}

pub(crate) struct Members<'t> {
    next: Value<'t>,
    left: usize,
}

impl<'t> Iterator for Members<'t> {
    type Item = (&'t str, Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Node::String(name) = self.next.node() else { return None };
        let value = Value { nodes: self.next.nodes, at: self.next.at + 1 };
        self.next.at = value.after();
        Some((name, value))
    }
}

#[derive(Clone)]
pub(crate) struct Elements<'t> {
    next: Value<'t>,
    left: usize,
}

impl Elements<'_> {
    pub(crate) fn count_left(&self) -> usize {
        self.left
    }
}

impl<'t> Iterator for Elements<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Value<'t>> {
        self.left = self.left.checked_sub(1)?;
        let value = self.next;
        self.next.at = value.after();
        Some(value)
    }
}

/// Finds the byte ranges of values, in the order of the document: one pass over the structural
/// characters however many are asked for. Names and values stand on the tape in the order of
/// their first bytes, so counting those finds any of them.
pub(crate) struct Spans<'t> {
    raw: &'t [u8],
    structurals: &'t [u32],
    /// Next structural character to look at.
    at: usize,
    /// How many tape nodes began before it.
    node: usize,
}

impl Spans<'_> {
    /// Byte range of `value`. Values must be asked for in the order of the document, and not inside one another.
    pub(crate) fn of(&mut self, value: Value<'_>) -> Range<usize> {
        self.find(value);
        let start = self.offset();
        let end = self.skip();
        self.node = value.after();
        start..end
    }

    /// Offset of the bracket that opens `value`, a list or an object; its inside comes next.
    pub(crate) fn open(&mut self, value: Value<'_>) -> usize {
        self.find(value);
        self.node += 1;
        self.step()
    }

    /// Steps over one structural character; its offset. After a value or a name: what follows it,
    /// a comma, a colon or the bracket that closes what it is in.
    pub(crate) fn step(&mut self) -> usize {
        let at = self.offset();
        self.at += 1;
        at
    }

    /// Steps over a comma if one is next; its offset.
    pub(crate) fn comma(&mut self) -> Option<usize> {
        (self.byte() == Some(b',')).then(|| self.step())
    }

    /// Goes to the first byte of `value`.
    fn find(&mut self, value: Value<'_>) {
        while let Some(byte) = self.byte() {
            if begins_node(byte) {
                if self.node == value.at {
                    break;
                }
                self.node += 1;
            }
            self.at += 1;
        }
    }

    /// Steps over the value that begins here; the offset just after it.
    fn skip(&mut self) -> usize {
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            self.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                if matches!(byte, b'}' | b']') {
                    return self.structurals.get(self.at - 1).map_or(self.raw.len(), |at| *at as usize + 1);
                }
                break;
            }
        }
        // A scalar ends where the white space before the next structural character begins.
        let before = self.raw.get(..self.offset()).unwrap_or(self.raw);
        before.trim_ascii_end().len()
    }

    fn byte(&self) -> Option<u8> {
        self.structurals.get(self.at).and_then(|at| self.raw.get(*at as usize)).copied()
    }

    fn offset(&self) -> usize {
        self.structurals.get(self.at).map_or(self.raw.len(), |at| *at as usize)
    }
}

fn begins_node(byte: u8) -> bool {
    !matches!(byte, b',' | b':' | b'}' | b']')
}
