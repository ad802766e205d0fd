//! The Merkle tree over an object's records, as RFC 6962 (2.1) defines it. Pure.
//!
//! One digest stands for all records in their order; that a record is among them can be proven with as many digests as
//! the tree is high, without the others.

use aws_lc_rs::digest::{Context, SHA256, digest};

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
    pub(in crate::archive) fn push(&mut self, record: &[u8]) {
        let mut hash = node(&[&[0], record]);
        let mut pairs = self.leaves;
        while pairs & 1 == 1 {
            if let Some(left) = self.full.pop() {
                hash = node(&[&[1], &left, &hash]);
            }
            pairs >>= 1;
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    pub(in crate::archive) fn root(&self) -> Hash {
        let mut subtrees = self.full.iter().rev().copied();
        match subtrees.next() {
            Some(last) => subtrees.fold(last, |right, left| node(&[&[1], &left, &right])),
            None => hash_of(digest(&SHA256, b"").as_ref()),
        }
    }
}

/// The first byte keeps leaves and nodes apart.
fn node(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    hash_of(context.finish().as_ref())
}

/// SHA-256 has 32 bytes.
fn hash_of(digest: &[u8]) -> Hash {
    digest.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference tree of Certificate Transparency's own tests.
    #[test]
    fn roots_are_those_of_rfc_6962() {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
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
        let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut tree = Tree::default();
        assert_eq!(hex(tree.root()), roots[0]);
        for (leaf, root) in leaves.iter().zip(&roots[1..]) {
            let bytes: Vec<u8> = (0..leaf.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&leaf[at..at + 2], 16).unwrap())
                .collect();
            tree.push(&bytes);
            assert_eq!(hex(tree.root()), *root);
        }
    }

    /// The definition itself, which splits at the largest power of two.
    fn defined(records: &[Vec<u8>]) -> Hash {
        match records {
            [] => hash_of(digest(&SHA256, b"").as_ref()),
            [record] => node(&[&[0], record]),
            _ => {
                let half = records.len().next_power_of_two() / 2;
                node(&[&[1], &defined(&records[..half]), &defined(&records[half..])])
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
            tree.push(&records[number as usize]);
        }
    }
}
