//! The Merkle tree over an object's records, as RFC 6962 (2.1) defines it. Pure.
//!
//! One digest stands for all records in their order; that a record is among them can be proven with as many digests as
//! the tree is high, without the others. What the tree has of a record is its line up to the body, if what stands there
//! last is the body's own `sha256`, and else the whole line: a body is not digested twice.

use aws_lc_rs::digest::{SHA256, digest};
use memchr::memmem::Finder;

pub(in crate::archive) type Hash = [u8; 32];

/// Grows by a record at a time; holds one digest for each bit of their number.
#[derive(Debug)]
pub(in crate::archive) struct Tree {
    /// Roots of full subtrees, the largest first.
    full: Vec<Hash>,
    leaves: u64,
    body: Finder<'static>,
    leaf: Vec<u8>,
}

impl Default for Tree {
    fn default() -> Self {
        // Quotes stand in no text of a line without a backslash before them.
        Self { full: Vec::new(), leaves: 0, body: Finder::new(b",\"body"), leaf: Vec::new() }
    }
}

impl Tree {
    /// `record`: its line without the line break.
    pub(in crate::archive) fn push_record(&mut self, record: &[u8]) {
        let Self { body, leaf, .. } = self;
        leaf.clear();
        // Keeps leaves and nodes apart.
        leaf.push(0);
        leaf.extend_from_slice(proven(record, body));
        let mut hash = sha256(leaf);
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
fn proven<'a>(record: &'a [u8], body: &Finder<'_>) -> &'a [u8] {
    const DIGEST: &[u8] = b",\"sha256\":\"";
    let Some(body) = body.find(record) else { return record };
    let (head, _) = record.split_at(body);
    let digest = head.len().checked_sub(DIGEST.len() + 2 * 32 + 1).and_then(|at| head.get(at..));
    if digest.is_some_and(|member| member.starts_with(DIGEST)) { head } else { record }
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

    /// The leaves and roots of Certificate Transparency's own tests.
    #[test]
    fn roots_are_those_of_rfc_6962() {
        let leaves = ["", "\0", "\x10", " !", "01", "@ABC", "PQRSTUVW", "`abcdefghijklmno"];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Tree::default();
        for (at, root) in roots.into_iter().enumerate() {
            let hex: String = tree.root().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, root, "{at} records");
            leaves.get(at).into_iter().for_each(|leaf| tree.push_record(leaf.as_bytes()));
        }
    }

    /// The definition itself, which splits at the largest power of two.
    fn defined(records: &[Vec<u8>]) -> Hash {
        match records {
            [] => sha256(b""),
            [record] => sha256(&[b"\0", record.as_slice()].concat()),
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
        fn proven(record: &[u8]) -> &[u8] {
            super::proven(record, &Tree::default().body)
        }
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
