//! Two sides in alternating blocks: A B B A and so on, so that a slow drift of the machine favours neither.

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

/// Runs one block of each side in each pair, and returns what the blocks found, pair by pair.
pub fn alternate<T>(
    pairs: usize,
    mut block: impl FnMut(usize, Side) -> anyhow::Result<T>,
) -> anyhow::Result<(Vec<T>, Vec<T>)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        if pair % 2 == 0 {
            a.push(block(pair, Side::A)?);
            b.push(block(pair, Side::B)?);
        } else {
            b.push(block(pair, Side::B)?);
            a.push(block(pair, Side::A)?);
        }
    }
    Ok((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_turns_from_pair_to_pair_and_pairs_stay_together() {
        let mut order = Vec::new();
        let (a, b) = alternate(4, |pair, side| {
            order.push(side);
            Ok((pair, side))
        })
        .unwrap();
        assert_eq!(order, [Side::A, Side::B, Side::B, Side::A, Side::A, Side::B, Side::B, Side::A]);
        assert!(a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1 == Side::A && b.1 == Side::B));
    }

    #[test]
    fn a_block_that_fails_ends_the_run() {
        let run = alternate(8, |pair, _| if pair < 2 { Ok(()) } else { Err(anyhow::anyhow!("no disk")) });
        assert_eq!(run.unwrap_err().to_string(), "no disk");
    }
}
