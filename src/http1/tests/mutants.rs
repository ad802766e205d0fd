//! Seeded random changes to good messages.

use super::super::*;
use super::answers::answer;
use super::{in_pieces, post};

/// A small generator with a printable seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// `buf` with up to four changes that tend to hurt parsers.
    fn mutate(&mut self, mut buf: Vec<u8>) -> Vec<u8> {
        const TOKENS: [&[u8]; 18] = [
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n\n",
            b" ",
            b"\t",
            b":",
            b"\0",
            b"\x85",
            b",",
            b";",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"HTTP/1.1",
            b"Host: b\r\n",
            b"0\r\n\r\n",
        ];
        for _ in 0..=self.below(4) {
            let at = self.below(buf.len() + 1);
            match self.below(4) {
                0 if at < buf.len() => buf[at] = self.below(256) as u8,
                1 if at < buf.len() => drop(buf.drain(at..buf.len().min(at + 1 + self.below(8)))),
                2 => {
                    let part = buf[at..buf.len().min(at + self.below(40))].to_vec();
                    let to = self.below(buf.len() + 1);
                    buf.splice(to..to, part);
                }
                _ => drop(buf.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
            }
        }
        buf
    }
}

#[test]
fn mutants_are_never_taken_more_loosely_than_by_httparse() {
    let seeds = [
        post("Content-Length: 5\r\nUser-Agent: facebookexternalua\r\nX-Hub-Signature-256: sha256=0a\r\n")
            + "hello",
        post("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n")
            + "5\r\nhello\r\n0\r\n\r\n",
        "\r\nGET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n".to_owned(),
    ];
    let mut taken = 0;
    for seed in 0..6000 {
        let mut random = Random(seed);
        let text = &seeds[random.below(seeds.len())];
        let buf = random.mutate(text.clone().into_bytes());
        let whole = in_pieces(&buf, []);
        let cut = random.below(buf.len() + 1);
        assert_eq!(in_pieces(&buf, [cut]), whole, "seed {seed} cut at {cut}: {}", buf.escape_ascii());
        assert_eq!(in_pieces(&buf, 0..buf.len()), whole, "seed {seed} bytewise: {}", buf.escape_ascii());
        let Ok(Some((method, .., used))) = whole else { continue };
        taken += 1;
        let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let other = request.parse(&buf);
        assert_eq!(other, Ok(httparse::Status::Complete(used)), "seed {seed}: {}", buf.escape_ascii());
        assert_eq!(request.method, Some(method.as_str()), "seed {seed}");
    }
    assert!(taken > 500, "the mutants are too wild to prove anything: {taken}");
}

#[test]
fn mutated_bodies_and_answers_give_one_verdict() {
    let chunks = b"5;x=y\r\nhello\r\n0a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 5\r\n\r\nok",
        "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for seed in 0..6000 {
        let mut random = Random(seed);
        let buf = random.mutate(chunks.to_vec());
        let decode = |cuts: &mut dyn Iterator<Item = usize>| {
            let (mut decoder, mut body, mut start) = (Chunked::new(100), Vec::new(), 0);
            for end in cuts.chain([buf.len()]) {
                let progress = decoder.decode(&buf[start..end], |data| body.extend_from_slice(data))?;
                start += progress.consumed;
                if progress.done {
                    return Ok(Some((body, start)));
                }
            }
            Ok::<_, Refusal>(None)
        };
        let cut = random.below(buf.len() + 1);
        let whole = decode(&mut std::iter::empty());
        assert_eq!(
            decode(&mut std::iter::once(cut)),
            whole,
            "seed {seed} cut at {cut}: {}",
            buf.escape_ascii()
        );
        assert_eq!(decode(&mut (0..buf.len())), whole, "seed {seed} bytewise: {}", buf.escape_ascii());

        let text = answers[random.below(answers.len())];
        let buf = random.mutate(text.as_bytes().to_vec());
        let cut = random.below(buf.len() + 1);
        let whole = answer(&buf, []);
        assert_eq!(answer(&buf, [cut]), whole, "seed {seed} cut at {cut}: {}", buf.escape_ascii());
        assert_eq!(answer(&buf, 0..buf.len()), whole, "seed {seed} bytewise: {}", buf.escape_ascii());
    }
}
