//! The Merkle tree over an object's records, as RFC 6962 (2.1) defines it. Pure.
//!
//! One digest stands for all records in their order; that a record is among them can be proven with as many digests as
//! the tree is high, without the others. What the tree has of a record is the SHA-256 of its line up to the body, if what
//! stands there last is the body's own `sha256`, and else of the whole line: a body is not digested twice.

use aws_lc_rs::digest::{SHA256, digest};
use memchr::memmem;

pub(in crate::archive) type Hash = [u8; 32];

/// Grows by a record at a time; holds one digest for each bit of their number.
#[derive(Debug, Clone, Default)]
pub(in crate::archive) struct Tree {
    /// Roots of full subtrees, the largest first.
    full: Vec<Hash>,
    leaves: u64,
}

impl Tree {
    /// `record`: its line without the line break.
    pub(in crate::archive) fn push_record(&mut self, record: &[u8]) {
        self.push(&sha256(proven(record)));
    }

    fn push(&mut self, leaf: &Hash) {
        let mut hash = leaf_hash(leaf);
        let mut pairs = self.leaves;
        while pairs & 1 == 1 {
            if let Some(left) = self.full.pop() {
                hash = node(&left, &hash);
            }
            pairs >>= 1;
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    pub(in crate::archive) fn root(&self) -> Hash {
        let mut subtrees = self.full.iter().rev().copied();
        match subtrees.next() {
            Some(last) => subtrees.fold(last, |right, left| node(&left, &right)),
            None => sha256(b""),
        }
    }
}

/// What of a record stands for all of it.
fn proven(record: &[u8]) -> &[u8] {
    const DIGEST: &[u8] = b",\"sha256\":\"";
    // Quotes stand in no text of a line without a backslash before them.
    let Some(body) = memmem::find(record, b",\"body") else { return record };
    let (head, _) = record.split_at(body);
    let digest = head.len().checked_sub(DIGEST.len() + 2 * 32 + 1).and_then(|at| head.get(at..));
    if digest.is_some_and(|member| member.starts_with(DIGEST)) { head } else { record }
}

/// The first byte keeps leaves and nodes apart.
fn leaf_hash(leaf: &Hash) -> Hash {
    let mut bytes = [0; 33];
    bytes[1..].copy_from_slice(leaf);
    sha256(&bytes)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    sha256(&bytes)
}

/// It has 32 bytes.
fn sha256(bytes: &[u8]) -> Hash {
    digest(&SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by an implementation that gives the roots of Certificate Transparency's own tests; records "0", "1", ...
    #[test]
    fn roots_are_those_of_rfc_6962() {
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "13a77175e35eb1d9da91ee14df0d7772cea71289800206e2b45c882ecb06efbf",
            "bbb441530bdded54e6e2bfcdc829819ff39b30768eb9f023071dffc16b410f10",
            "8be871f13785b4c81a1700459c76ac2b3ae2caebb7876c376e223c6adff98c47",
            "626635eec4e2fa4a75475a0f1d633dbee55b6783247c108b9a12dcc60f13836e",
            "4e23fb40d8876f1299cca9b3c28432a01b11d1a20126606914612892ff2e09a7",
            "49a8d9139a2333a5c1b7cd5a8db90bc3f7f308dd7fbdbf9e4ffaed988f1764fb",
            "5653c4ab2514ccd6ea4f0159702d2aba901f2562aa75abcff5a19e344bee038f",
            "da17ac5d45a1b0c50260c7e411bf342ba2a41c9c824bb3b6404e5330a585a057",
        ];
        let mut tree = Tree::default();
        for (records, root) in (0u32..).zip(roots) {
            let hex: String = tree.root().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, root, "{records} records");
            tree.push_record(records.to_string().as_bytes());
        }
    }

    /// The definition itself, which splits at the largest power of two.
    fn defined(records: &[Vec<u8>]) -> Hash {
        match records {
            [] => sha256(b""),
            [record] => leaf_hash(&sha256(record)),
            _ => {
                let half = records.len().next_power_of_two() / 2;
                node(&defined(&records[..half]), &defined(&records[half..]))
            }
        }
    }

    #[test]
    fn a_tree_that_grows_has_the_root_of_the_definition() {
        let mut tree = Tree::default();
        let mut records = Vec::new();
        for number in 0..200u32 {
            assert_eq!(tree.root(), defined(&records), "{number} records");
            records.push(number.to_string().into_bytes());
            tree.push_record(&records[number as usize]);
        }
    }

    #[test]
    fn what_stands_for_a_record_has_the_digest_of_its_body_or_the_body() {
        let digest = "5".repeat(64);
        let whole = format!(r#"{{"v":1,"sha256":"{digest}","body":"text \",\"body"}}"#);
        assert_eq!(proven(whole.as_bytes()), whole.split(",\"body\"").next().unwrap().as_bytes());
        let odd = whole.replace("body\":", "body_base64\":");
        assert_eq!(proven(odd.as_bytes()), whole.split(",\"body\"").next().unwrap().as_bytes());
        for other in [
            format!(r#"{{"v":1,"sha256":"{digest}","ranges":[[0,2]],"body":"te"}}"#),
            format!(r#"{{"v":1,"hmac_sha256":"{digest}","masked":["text"],"body":"te"}}"#),
            format!(r#"{{"v":1,"hmac_sha256":"{digest}","body":"te"}}"#),
            format!(r#"{{"headers":{{"x":"y","body":"z"}},"sha256":"{digest}","body":"te"}}"#),
            "no record".to_owned(),
            String::new(),
        ] {
            assert_eq!(proven(other.as_bytes()), other.as_bytes());
        }
    }
}
