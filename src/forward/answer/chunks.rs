//! Finding the end of a chunked body whose bytes nobody wants.
//!
//! Extensions and trailers are skipped; their length counts against the body's limit, which the
//! caller keeps.

use super::AnswerError;

/// Hex digits of a chunk's size: 4 GiB, far above the limit of any body.
const DIGITS_MAX: u8 = 8;

#[derive(Debug)]
pub(super) struct Chunks(State);

#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        digits: u8,
        size: u32,
    },
    Extension {
        size: u32,
    },
    SizeLf {
        size: u32,
    },
    Data {
        left: u32,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    Trailer,
    TrailerText,
    TrailerLf,
    EndLf,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self(State::Size { digits: 0, size: 0 })
    }

    /// How many bytes belong to the body, and whether it ends there.
    pub(super) fn skip(&mut self, buf: &[u8]) -> Result<(usize, bool), AnswerError> {
        let mut at = 0;
        while at < buf.len() {
            if let State::Data { left } = self.0 {
                let taken = (buf.len() - at).min(left as usize);
                at += taken;
                // At most `left`, which is a u32.
                let left = left - taken as u32;
                self.0 = if left == 0 { State::DataCr } else { State::Data { left } };
                continue;
            }
            let byte = buf[at];
            at += 1;
            if matches!((self.0, byte), (State::EndLf, b'\n')) {
                return Ok((at, true));
            }
            self.0 = self.0.after(byte)?;
        }
        Ok((at, false))
    }
}

impl State {
    fn after(self, byte: u8) -> Result<Self, AnswerError> {
        // Text of extensions and trailers: anything but control characters.
        let text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7F);
        Ok(match (self, byte) {
            (Self::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS_MAX => {
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                Self::Size { digits: digits + 1, size: (size << 4) | u32::from(digit) }
            }
            (Self::Size { digits: 1.., size }, b';') => Self::Extension { size },
            (Self::Size { digits: 1.., size } | Self::Extension { size }, b'\r') => Self::SizeLf { size },
            (Self::Extension { .. }, _) if text(byte) => self,
            (Self::SizeLf { size: 0 }, b'\n') => Self::Trailer,
            (Self::SizeLf { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { digits: 0, size: 0 },
            (Self::Trailer, b'\r') => Self::EndLf,
            (Self::TrailerText, b'\r') => Self::TrailerLf,
            (Self::Trailer | Self::TrailerText, _) if text(byte) => Self::TrailerText,
            (Self::TrailerLf, b'\n') => Self::Trailer,
            (Self::Size { .. } | Self::Extension { .. } | Self::SizeLf { .. }, _) => {
                return Err(AnswerError::Framing("chunk size line"));
            }
            (Self::DataCr | Self::DataLf | Self::Data { .. }, _) => {
                return Err(AnswerError::Framing("no line end after a chunk"));
            }
            (Self::Trailer | Self::TrailerText | Self::TrailerLf | Self::EndLf, _) => {
                return Err(AnswerError::Framing("trailer"));
            }
        })
    }
}
