//! Writes a JSON value in one of the many ways that all say the same.

use serde_json::Value;

use super::Rng;

/// How much a writer deviates from the shortest form.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) blanks: bool,
    pub(crate) escapes: bool,
    pub(crate) shuffle: bool,
    /// Members that a later one of the same name replaces.
    pub(crate) doubles: bool,
}

impl Style {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        Self { blanks: rng.one_in(2), escapes: rng.one_in(2), shuffle: rng.one_in(2), doubles: false }
    }
}

pub(crate) fn write(value: &Value, style: Style, rng: &mut Rng) -> Vec<u8> {
    let mut out = String::new();
    any(value, style, rng, &mut out);
    out.into_bytes()
}

fn any(value: &Value, style: Style, rng: &mut Rng, out: &mut String) {
    blank(style, rng, out);
    match value {
        Value::String(text) => string(text, style, rng, out),
        Value::Array(list) => {
            out.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                any(element, style, rng, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            if style.shuffle {
                for index in (1..members.len()).rev() {
                    members.swap(index, rng.below(index + 1));
                }
            }
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                if style.doubles && rng.one_in(8) {
                    let other = *rng.pick(&members);
                    member(name, other.1, style, rng, out);
                    out.push(',');
                }
                member(name, value, style, rng, out);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    blank(style, rng, out);
}

fn member(name: &str, value: &Value, style: Style, rng: &mut Rng, out: &mut String) {
    blank(style, rng, out);
    string(name, style, rng, out);
    blank(style, rng, out);
    out.push(':');
    any(value, style, rng, out);
}

fn string(text: &str, style: Style, rng: &mut Rng, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            _ if style.escapes && (rng.one_in(8) || !letter.is_ascii()) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            '/' if style.escapes => out.push_str("\\/"),
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' if style.escapes => out.push_str("\\n"),
            _ if letter < ' ' => out.push_str(&format!("\\u{:04X}", letter as u32)),
            _ => out.push(letter),
        }
    }
    out.push('"');
}

fn blank(style: Style, rng: &mut Rng, out: &mut String) {
    while style.blanks && rng.one_in(3) {
        out.push(*rng.pick(&[' ', '\n', '\t', '\r']));
    }
}
