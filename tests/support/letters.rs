//! The dead letters of a gateway, as a person reads them: with `penstock dead`, whether it runs or not.

use super::gateway::{Gateway, run};

/// One that waits for a person, or is to go out again.
#[derive(Debug, Clone)]
pub struct Letter {
    /// As `penstock dead show` has it.
    pub shown: serde_json::Value,
    /// The webhook as it came.
    pub webhook: Vec<u8>,
}

impl Letter {
    pub fn region(&self) -> &str {
        self.shown["region"].as_str().unwrap()
    }

    /// Places of its events among those of the webhook; none: all that are for the region.
    pub fn places(&self) -> Vec<usize> {
        let places = self.shown["places"].as_array().unwrap();
        places.iter().map(|place| place.as_u64().unwrap() as usize).collect()
    }
}

impl Gateway {
    /// All dead letters, oldest first.
    pub fn letters(&self) -> Vec<Letter> {
        let config = self.config().display().to_string();
        let dead = |command: &str, more: &[&str]| {
            let arguments = [&["dead", command, "--config", &config], more].concat();
            let (code, said, errors) = run(&arguments);
            assert_eq!(code, Some(0), "{arguments:?}: {said}{errors}");
            said
        };
        let listed = dead("list", &["--json", "--limit", "0"]);
        let letter = |line: &str| {
            let listed: serde_json::Value = serde_json::from_str(line).unwrap();
            let said = dead("show", &[listed["id"].as_str().unwrap(), "--body"]);
            let (shown, webhook) = said.split_once("\n\n").expect("the webhook follows");
            let webhook = webhook.strip_suffix('\n').unwrap().as_bytes().to_vec();
            Letter { shown: serde_json::from_str(shown).unwrap(), webhook }
        };
        listed.lines().map(letter).collect()
    }
}
